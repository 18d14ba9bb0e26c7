"""The whole method on the built-in synthetic corpus: train, denoise, score, plot, and a page."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, models, training
from blsh_jax.config import FitConfig, TrainConfig
from blsh_jax.corpora import audio
from blsh_jax.evaluation import System, plots, records, result_page
from blsh_jax.evaluation.result_page import Example
from blsh_jax.models.model import Model

_METHODS = ("noisy", "lsh", "blsh", "knn", "ibm", "irm")
_COLUMNS = ["method", "num_bits", "sdr", "sir", "sar", "si_sdr", "seconds"]
_TRAIN = TrainConfig(
    fit=FitConfig(num_bits=50), dictionary_fraction=0.3, max_fit_frames=10_000, held_back=0.0
)
_LEAD = (
    "Made by `blsh demo`: projections were learned on noisy mixtures of synthetic speech and "
    "ten synthetic noises, then other utterances of the same speakers were denoised. LSH draws its "
    "projections at random; BLSH learns them one after another."
)


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """How large the demo is.

    Attributes:
        train: the training run. Whole utterances are held back, so no parts of utterances are.
        num_bits: code lengths that are scored, the longest last.
        num_speakers: speakers of the synthetic corpus.
        num_training: utterances of each speaker that are trained on.
        num_held_back: utterances of each speaker that are scored.
        num_scored: mixtures that are scored at most.
        num_examples: mixtures on the page, each with another noise.
    """

    train: TrainConfig = _TRAIN
    num_bits: tuple[int, ...] = (10, 25, 50)
    num_speakers: int = 8
    num_training: int = 4
    num_held_back: int = 1
    num_scored: int = 32
    num_examples: int = 2


def run(folder: Path, seed: int = 0, config: DemoConfig = DemoConfig()) -> list[dict]:
    """Run the demo and say what it does.

    Args:
        folder: where the page, wav files, pictures, the model and the record are written.
        seed: of the corpus and the training.
        config: its size.

    Returns:
        The rows of the score table.
    """
    start = time.perf_counter()
    learned, held_back = _make_mixtures(config, seed)
    print(f"Training {config.train.fit.num_bits} bits on {len(learned)} mixtures")
    settings = dataclasses.replace(config.train, seed=seed)
    source = {"layout": "synthetic", "licence": "made by this package"}
    model, _ = training.train(learned, settings, {"speech": source, "noise": source}, progress=True)
    models.save(model, folder / "model.npz")
    snr = config.train.snr_db
    print(f"Denoising and scoring {len(held_back)} held-back mixtures at {snr:g} dB")
    systems = evaluation.make_systems(model, _METHODS, config.num_bits, seed)
    rows = evaluation.evaluate(systems, held_back, progress=True)
    print("\nMeans in dB, weighted by length\n" + records.table(rows, _COLUMNS) + "\n")
    record = records.record(rows, configs.to_dict(config) | {"seed": seed})
    records.write_json(folder / "scores.json", record)
    heard = [system for system in systems if (system.method, system.num_bits) in _heard(config)]
    examples = result_page.examples(heard, held_back, model.separation.stft, config.num_examples)
    _write_sounds(folder, heard, examples[0], model, config)
    title = "Boosted Locality Sensitive Hashing on synthetic speech"
    result_page.write(folder / "report.html", title, _LEAD, rows, examples, model)
    print(
        f"Wrote {folder}/ in {time.perf_counter() - start:.0f} s: open report.html; wav files, "
        "pictures, model.npz and scores.json are beside it"
    )
    return rows


def _make_mixtures(config: DemoConfig, seed: int) -> tuple[corpora.Mixtures, corpora.Mixtures]:
    """Training mixtures, and those of other utterances of the same speakers, in the same noises."""
    speech_key, noise_key = jax.random.split(jax.random.key(seed))
    rate, each = (
        config.train.separation.stft.sample_rate,
        config.num_training + config.num_held_back,
    )
    print(f"Making {config.num_speakers * each} utterances and 10 noises")
    speech = corpora.synthetic_speech(speech_key, config.num_speakers, each, sample_rate=rate)
    noise = corpora.synthetic_noise(noise_key, sample_rate=rate)
    place = np.arange(len(speech)) % each
    learned = speech.some(np.flatnonzero(place < config.num_training))
    held_back = speech.some(np.flatnonzero(place >= config.num_training))
    snr = config.train.snr_db
    return (
        corpora.make_mixtures(learned, noise, snr, seed),
        corpora.make_mixtures(held_back, noise, snr, seed, max_mixtures=config.num_scored),
    )


def _heard(config: DemoConfig) -> set[tuple[str, int | None]]:
    """The systems that can be heard: all of them would make a long page."""
    short, long = config.num_bits[min(1, len(config.num_bits) - 1)], config.num_bits[-1]
    return {("noisy", None), ("lsh", short), ("blsh", short), ("blsh", long), ("ibm", None)}


def _write_sounds(
    folder: Path, heard: Sequence[System], first: Example, model: Model, config: DemoConfig
) -> None:
    """Wav files and pictures of the first example, and pictures of the codes."""
    stft = model.separation.stft
    names = [s.method if s.num_bits is None else f"{s.method}_{s.num_bits}_bits" for s in heard]
    for name, sound in zip([*names, "clean"], first.sounds, strict=True):
        audio.write(folder / f"{name}.wav", sound.signal, stft.sample_rate)
    signals = {sound.title: sound.signal for sound in first.sounds}
    plots.save(plots.spectrograms(signals, stft), folder / "spectrograms.png")
    target, learned = result_page.self_similarities(model, first.sounds[0].signal, config.num_bits)
    plots.save(plots.self_similarity(target, learned), folder / "self_similarity.png")

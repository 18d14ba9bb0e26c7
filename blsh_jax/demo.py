"""The whole method on the built-in synthetic corpus: train, denoise, score, plot, and a page."""

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, models, training
from blsh_jax.config import FitConfig, TrainConfig
from blsh_jax.corpora import audio
from blsh_jax.evaluation import plots, records, result_page

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
    # All systems would make a long page.
    short, long = config.num_bits[min(1, len(config.num_bits) - 1)], config.num_bits[-1]
    names = {("noisy", None): "noisy", ("lsh", short): f"lsh_{short}_bits", ("ibm", None): "ibm"}
    names |= {("blsh", bits): f"blsh_{bits}_bits" for bits in (short, long)}
    heard = [system for system in systems if (system.method, system.num_bits) in names]
    stft = model.separation.stft
    examples = result_page.examples(heard, held_back, stft, config.num_examples)
    sounds = examples[0].sounds
    files = [names[system.method, system.num_bits] for system in heard]
    for name, sound in zip([*files, "clean"], sounds, strict=True):
        audio.write(folder / f"{name}.wav", sound.signal, stft.sample_rate)
    signals = {sound.title: sound.signal for sound in sounds}
    plots.save(plots.spectrograms(signals, stft), folder / "spectrograms.png")
    similarities = result_page.self_similarities(model, sounds[0].signal, config.num_bits)
    plots.save(plots.self_similarity(*similarities), folder / "self_similarity.png")
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
    rate = config.train.separation.stft.sample_rate
    each = config.num_training + config.num_held_back
    print(f"Making {config.num_speakers * each} utterances and 10 noises")
    speech = corpora.synthetic_speech(speech_key, config.num_speakers, each, sample_rate=rate)
    noise = corpora.synthetic_noise(noise_key, sample_rate=rate)
    place, snr = np.arange(len(speech)) % each, config.train.snr_db
    learned = speech.some(np.flatnonzero(place < config.num_training))
    held_back = speech.some(np.flatnonzero(place >= config.num_training))
    return (
        corpora.make_mixtures(learned, noise, snr, seed),
        corpora.make_mixtures(held_back, noise, snr, seed, max_mixtures=config.num_scored),
    )

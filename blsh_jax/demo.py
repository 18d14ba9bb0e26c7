"""The whole method on the built-in synthetic corpus: train, denoise, score, plot."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import audio, codes, corpora, evaluation, plots, records, similarity, training
from blsh_jax import config as configs
from blsh_jax import model as models
from blsh_jax.config import FitConfig, TrainConfig
from blsh_jax.model import Model

CONFIG = TrainConfig(fit=FitConfig(num_bits=100), dictionary_fraction=0.3, max_fit_frames=10_000)
NUM_BITS = (25, 50, 100)
_SPEAKERS, _UTTERANCES, _SCORED = 8, 4, 60
_COLUMNS = ["method", "num_bits", "sdr", "sir", "sar", "si_sdr", "seconds"]


def run(folder: Path, seed: int = 0) -> list[dict]:
    """Run the demo and say what it does.

    Args:
        folder: where wav files, pictures, the model and the record are written.
        seed: of the corpus and the training.

    Returns:
        The rows of the score table.
    """
    start = time.perf_counter()
    speech_key, noise_key = jax.random.split(jax.random.key(seed))
    rate = CONFIG.stft.sample_rate
    print(f"Making {_SPEAKERS * _UTTERANCES} utterances and 10 noises")
    speech = corpora.synthetic_speech(speech_key, _SPEAKERS, _UTTERANCES, sample_rate=rate)
    noise = corpora.synthetic_noise(noise_key, sample_rate=rate)
    model = _train(speech, noise, seed)
    models.save(model, folder / "model.npz")
    held_back = corpora.make_mixtures(
        speech, noise, CONFIG.snr_db, seed, "closed", CONFIG.held_back, max_mixtures=_SCORED
    )
    print(f"Denoising and scoring {len(held_back)} held-back mixtures at {CONFIG.snr_db:g} dB")
    systems = evaluation.make_systems(
        model, ("noisy", "lsh", "blsh", "knn", "ibm", "irm"), NUM_BITS, seed
    )
    rows = evaluation.evaluate(systems, held_back, progress=True)
    print("\nMeans in dB, weighted by length\n" + records.table(rows, _COLUMNS) + "\n")
    records.write_json(
        folder / "scores.json",
        {
            "results": rows,
            "config": configs.to_dict(CONFIG) | {"seed": seed},
            "environment": records.environment(),
        },
    )
    _write_example(systems, held_back, folder)
    _plot_self_similarity(model, folder / "self_similarity.png")
    print(
        f"Wrote {folder}/ in {time.perf_counter() - start:.0f} s: noisy, denoised and clean wav "
        "files, self_similarity.png, spectrograms.png, scores.json, model.npz"
    )
    return rows


def _train(speech: corpora.Loaded, noise: corpora.Loaded, seed: int) -> Model:
    mixtures = corpora.make_mixtures(speech, noise, CONFIG.snr_db, seed, "train", CONFIG.held_back)
    print(f"Training {CONFIG.fit.num_bits} bits on {len(mixtures)} mixtures")
    source = {"layout": "synthetic", "licence": "made by this package"}
    return training.train(mixtures, CONFIG, {"speech": source, "noise": source}, progress=True)[0]


def _write_example(systems, mixtures, folder: Path) -> None:
    """Wav files and spectrograms of one mixture, the one whose noise is weakest masked."""
    example = mixtures[0]
    signals = {"clean": example.speech, "noisy": example.speech + example.noise}
    wanted = {("lsh", NUM_BITS[-1]): "LSH", ("blsh", NUM_BITS[-1]): "BLSH", ("ibm", None): "ideal"}
    for system in systems:
        if (system.method, system.num_bits) in wanted:
            estimate = system.estimate(
                jnp.asarray(example.speech)[None], jnp.asarray(example.noise)[None]
            )
            signals[wanted[system.method, system.num_bits]] = np.asarray(estimate)[0]
    for name, signal in signals.items():
        audio.write(folder / f"{name.lower()}.wav", signal, CONFIG.stft.sample_rate)
    order = ("noisy", "LSH", "BLSH", "ideal", "clean")
    titles = {name: f"{name}, {NUM_BITS[-1]} bits" if "LSH" in name else name for name in order}
    plots.spectrograms(
        {titles[name]: signals[name] for name in order}, CONFIG.stft, folder / "spectrograms.png"
    )


def _plot_self_similarity(model: Model, path: Path) -> None:
    """Frames in the order of their similarity to the first, so that the matrix shows structure."""
    frames = jnp.asarray(model.frames[:300], jnp.float32)
    order = jnp.argsort(-(frames @ frames[0]))
    frames, packed = frames[order], model.dictionary.codes[:300][order]
    fit = model.config.fit
    target = similarity.self_similarity(frames, fit.target, fit.sigma2)
    learned = {}
    for length in (5, *NUM_BITS):
        bits = codes.unpack_bits(packed, length)
        learned[length] = codes.self_similarity(bits, model.hasher.betas[:length])
    plots.self_similarity(np.asarray(target), {k: np.asarray(v) for k, v in learned.items()}, path)

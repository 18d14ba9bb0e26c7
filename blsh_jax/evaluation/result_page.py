"""The page of a separation experiment: scores, self-similarity matrices, and mixtures to hear.

shown = examples(systems, mixtures, stft)
write("report.html", title, lead, rows, shown, model)
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import corpora, evaluation, training
from blsh_jax.config import StftConfig
from blsh_jax.corpora import Batch, Mixtures
from blsh_jax.evaluation import System, metrics, plots, report
from blsh_jax.evaluation.report import Section, Sound
from blsh_jax.models.model import Model
from blsh_jax.paper import codes, similarity, spectra
from blsh_jax.search import packing

_COLUMNS = {
    "method": "method",
    "num_bits": "bits",
    "sdr": "SDR (dB)",
    "sir": "SIR (dB)",
    "sar": "SAR (dB)",
    "si_sdr": "SI-SDR (dB)",
    "utterances": "mixtures",
}
_ABOUT_MATRICES = (
    "Every frame of the first mixture above, or of its first 10 seconds, is compared with every "
    "other one; both axes are time. "
    "The target is what the codes were trained to reproduce. A code's matrix is the weighted share "
    "of bits that two frames agree on, about half by chance, so it is brighter than the target; "
    "what counts is which pairs stand out."
)
_SHOWN_SECONDS = 10  # the matrices grow with the square
_ABOUT_SOUNDS = (
    "All sounds of a mixture are played at one gain and drawn in one colour scale. A mask says how "
    "much of each time and frequency is kept; the ideal binary mask needs the clean speech "
    "and is the upper bound."
)


class Example(NamedTuple):
    """A mixture to hear: its name, and sounds from noisy to clean."""

    title: str
    sounds: Sequence[Sound]


def examples(
    systems: Sequence[System], mixtures: Mixtures, stft: StftConfig, count: int = 2
) -> list[Example]:
    """Run systems on a few mixtures for people to hear.

    Args:
        systems: what to hear, in order.
        mixtures: of the longest ones, the first with noises that differ are taken.
        stft: the transform of the systems.
        count: how many mixtures at most.

    Returns:
        The examples; the clean speech stands last in each.
    """
    # A batch of the size that evaluation uses, so that nothing has to be compiled again.
    batch = next(corpora.batches(mixtures, evaluation.BATCH_SIZE))
    keys = [mixtures[int(index)].key for index in batch.indices if index >= 0]
    noises = [key.rpartition("+")[2] for key in keys]
    rows = sorted({name: noises.index(name) for name in noises}.values())[:count]
    columns = [_heard(system, batch, rows, stft) for system in systems]
    columns.append([Sound("clean", batch.speech[row, : batch.lengths[row]]) for row in rows])
    return [
        Example(keys[row].replace("+", " in "), sounds)
        for row, sounds in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def self_similarities(
    model: Model, signal: np.ndarray, num_bits: Sequence[int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The target SSM of the frames of a signal, in their order, and those of their codes.

    Args:
        model: a trained model.
        signal: (n,) float32 at the model's rate.
        num_bits: code lengths.

    Returns:
        (T, T), and title to (T, T).

    Source: [ICASSP20] figure 2.
    """
    fit, mixture = model.config.fit, jnp.asarray(signal)[None]
    frames = training.analyse(mixture, jnp.zeros_like(mixture), model.config).frames[0]
    target = similarity.self_similarity(frames, fit.target, fit.sigma2)
    bits = packing.unpack_bits(codes.encode(model.hasher, frames), model.hasher.num_bits)
    learned = {
        f"BLSH, {length} bits": np.asarray(
            codes.self_similarity(bits[:, :length], model.hasher.betas[:length])
        )
        for length in num_bits
    }
    return np.asarray(target), learned


def write(
    path: str | os.PathLike,
    title: str,
    lead: str,
    rows: Sequence[Mapping[str, Any]],
    shown: Sequence[Example],
    model: Model,
) -> None:
    """Write the page.

    Args:
        path: the file (.html).
        title: of the page.
        lead: its first paragraph.
        rows: of ``evaluation.evaluate``.
        shown: of ``examples``.
        model: what was evaluated.
    """
    named = [dict(row) | {"method": plots.name(row["method"])} for row in rows]
    curve = plots.sdr_over_bits(rows)
    scores = Section(
        "Scores",
        [
            report.paragraph("Means over the mixtures, weighted by their length."),
            report.table(named, _COLUMNS),
            report.gallery([report.picture(curve, "SDR in dB over the code length")]),
        ],
    )
    about = report.paragraph(_ABOUT_SOUNDS)
    sounds = [
        Section(example.title, [about, report.listening(example.sounds, model.separation.stft)])
        for example in shown
    ]
    lengths = sorted({row["num_bits"] for row in rows if row["method"] == "blsh"})
    matrices = [_matrices(model, shown[0].sounds[0].signal, lengths)] if shown and lengths else []
    report.write(path, title, lead, [scores, *sounds, *matrices])


def _matrices(model: Model, signal: np.ndarray, num_bits: Sequence[int]) -> Section:
    stft = model.separation.stft
    shown = signal[: round(_SHOWN_SECONDS * stft.sample_rate)]
    target, learned = self_similarities(model, shown, num_bits)
    pictures = [
        report.picture(plots.matrix(title, matrix, target), f"self-similarity matrix: {title}")
        for title, matrix in ({"target": target} | learned).items()
    ]
    return Section("Self-similarity", [report.paragraph(_ABOUT_MATRICES), report.gallery(pictures)])


def _heard(system: System, batch: Batch, rows: Sequence[int], stft: StftConfig) -> list[Sound]:
    """What a system makes of some rows of a batch."""
    speech, noise = jnp.asarray(batch.speech), jnp.asarray(batch.noise)
    estimate, mask = system.separate(speech, noise)
    sdr = _sdr(speech, noise, estimate, batch.lengths)
    title = plots.name(system.method) + (f", {system.num_bits} bits" if system.num_bits else "")
    sounds = []
    for row in rows:
        length = int(batch.lengths[row])
        kept = None if mask is None else np.asarray(mask)[row, : spectra.num_frames(length, stft)]
        signal = np.asarray(estimate[row, :length])
        sounds.append(Sound(title, signal, kept, f"SDR {sdr[row]:.1f} dB"))
    return sounds


def _sdr(speech: Array, noise: Array, estimate: Array, lengths: np.ndarray) -> np.ndarray:
    """(U,) SDR of the speech in dB, of the rows that hold signal."""
    count = int(np.count_nonzero(lengths))
    references = jnp.stack([speech, noise], axis=1)[:count]
    estimates = jnp.stack([estimate, noise], axis=1)[:count]
    return np.asarray(metrics.bss_eval(references, estimates, jnp.asarray(lengths[:count])).sdr)[
        :, 0
    ]

"""Pictures: self-similarity matrices, spectrograms, masks and scores, with axes and units.

Functions make figures; ``save`` writes one to a file.
"""

import io
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from blsh_jax import files
from blsh_jax._extras import extra
from blsh_jax.config import StftConfig
from blsh_jax.evaluation.systems import NAMES
from blsh_jax.paper import spectra

with extra("report"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from PIL import Image

_DPI = 110
_COLUMNS = 3  # pictures side by side
_COLOURS = 256  # of a picture: a third of the bytes, and no difference to see
_RANGE_DB = 70.0


def name(method: str) -> str:
    """What people call a method; one that is not known here keeps its name."""
    return NAMES.get(method, method)


def self_similarity(target: np.ndarray, learned: Mapping[str, np.ndarray]) -> Figure:
    """The target self-similarity matrix beside those of codes.

    Args:
        target: (B, B) in [0, 1].
        learned: title to (B, B) in [0, 1].

    Source: [ICASSP20] figure 2.
    """
    return matrices({"target": target} | dict(learned), target)


def matrices(panels: Mapping[str, np.ndarray], target: np.ndarray) -> Figure:
    """Self-similarity matrices side by side, with how far off the target they are.

    Args:
        panels: title to (B, B) in [0, 1].
        target: (B, B); one of the panels, or not drawn.

    Source: [ICASSP20] figure 2.
    """
    figure = Figure(figsize=(3.0 * len(panels) + 0.6, 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, similarity) in zip(axes, panels.items(), strict=True):
        if similarity is not target:
            error = np.mean((similarity - target) ** 2)
            correlation = np.corrcoef(similarity.ravel(), target.ravel())[0, 1]
            title += f"\nMSE {error:.3f}, correlation {correlation:.2f}"
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("frame")
        image = axis.imshow(similarity, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
    axes[0].set_ylabel("frame")
    figure.colorbar(image, ax=list(axes), label="similarity", shrink=0.85)
    return figure


def pair_weights(target: np.ndarray, stages: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How boosting goes on: what codes make of the target, and which pairs count for the next bit.

    Args:
        target: (B, B) similarities in [0, 1].
        stages: title to the similarity of the codes so far (B, B) and the pair weights (B, B) that
            the next bit is learned with, a row of the picture each.

    Source: [ICASSP20] figure 2 and eq. 4.
    """
    rows = len(stages)
    figure = Figure(figsize=(10.4, 2.2 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    for row, (title, (made, weights)) in zip(axes, stages.items(), strict=True):
        share = weights / weights.mean()
        panels = {
            "target": (target, "magma", 0, 1),
            f"codes {title}": (made, "magma", 0, 1),
            "squared difference": (np.square(made - target), "viridis", 0, 0.5),
            "weights of the next bit": (share, "RdBu_r", 0, 2),
        }
        images = []
        for axis, (name, (matrix, colours, low, high)) in zip(row, panels.items(), strict=True):
            axis.set_title(name, fontsize=9)
            images.append(
                axis.imshow(matrix, vmin=low, vmax=high, cmap=colours, interpolation="nearest")
            )
        row[0].set_ylabel("frame")
        figure.colorbar(images[1], ax=row[1], label="similarity", shrink=0.85)
        figure.colorbar(images[2], ax=row[2], shrink=0.85)
        figure.colorbar(images[3], ax=row[3], label="weight / mean", shrink=0.85)
    for axis in axes[-1]:
        axis.set_xlabel("frame")
    return figure


def spectrograms(
    signals: Mapping[str, np.ndarray], stft: StftConfig, top: float | None = None
) -> Figure:
    """Log-magnitude spectrograms under one colour scale.

    Args:
        signals: title to (n,) samples at the rate of ``stft``.
        stft: the transform.
        top: level of the brightest colour in dB; default: ``peak_level`` of the signals.
    """
    columns = min(_COLUMNS, len(signals))
    rows = -(-len(signals) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.6, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    top = peak_level(list(signals.values()), stft) if top is None else top
    for axis, (title, signal) in zip(axes.flat, signals.items(), strict=False):
        levels, low = _decibels(signal, stft), top - _RANGE_DB
        image = _draw_bins(axis, levels, len(signal), stft, vmin=low, vmax=top, cmap="magma")
        axis.set_title(title, fontsize=10)
    for axis in axes.flat[len(signals) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=axes, label="level (dB)")
    return figure


def mask(values: np.ndarray, num_samples: int, stft: StftConfig) -> Figure:
    """A mask over time and frequency.

    Args:
        values: (T, F) in [0, 1].
        num_samples: n, of the signal that it belongs to.
        stft: the transform.
    """
    figure = Figure(figsize=(3.7, 2.6), layout="constrained")
    axis = figure.subplots()
    image = _draw_bins(axis, values, num_samples, stft, vmin=0.0, vmax=1.0, cmap="viridis")
    axis.set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=axis, label="share kept")
    return figure


def sdr_over_bits(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """SDR against code length; systems without codes are horizontal lines.

    Args:
        rows: of ``evaluation.evaluate``.

    Source: [ICASSP20] table 1 and [TASLP22], the same scores as a picture.
    """
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axis = figure.subplots()
    lines = itertools.cycle(("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1))))
    for method in dict.fromkeys(row["method"] for row in rows):
        # A score that is not defined, as of silence, has no value.
        chosen = [row for row in rows if row["method"] == method and row["sdr"] is not None]
        if not chosen:
            continue
        if chosen[0]["num_bits"] is None:
            style = next(lines)
            axis.axhline(chosen[0]["sdr"], color="0.4", linestyle=style, label=name(method))
        else:
            chosen = sorted(chosen, key=lambda row: row["num_bits"])
            bits, sdr = zip(*((row["num_bits"], row["sdr"]) for row in chosen), strict=True)
            axis.plot(bits, sdr, marker="o", label=name(method))
    axis.set_xlabel("code length L (bits)")
    axis.set_ylabel("SDR (dB)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return figure


def peak_level(signals: Sequence[np.ndarray], stft: StftConfig) -> float:
    """The level of the strongest bin of several signals, in dB."""
    return float(max(_decibels(signal, stft).max() for signal in signals))


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    image = Image.open(drawn).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    files.write(path, png(figure))


def _draw_bins(
    axis: Axes, values: np.ndarray, num_samples: int, stft: StftConfig, **colours: Any
) -> AxesImage:
    """(T, F) values, time from left to right and frequency from the bottom up."""
    axis.set_xlabel("time (s)")
    seconds, kilohertz = num_samples / stft.sample_rate, stft.sample_rate / 2000
    extent = (0.0, seconds, 0.0, kilohertz)
    return axis.imshow(values.T, origin="lower", aspect="auto", extent=extent, **colours)


def _decibels(signal: np.ndarray, stft: StftConfig) -> np.ndarray:
    """(T, F) levels, no lower than is shown of a signal of full scale."""
    magnitude = np.abs(np.asarray(spectra.stft(jnp.asarray(signal), stft)))
    return 20 * np.log10(np.maximum(magnitude, 1e-8))

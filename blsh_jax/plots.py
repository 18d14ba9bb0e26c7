"""Pictures: self-similarity matrices and spectrograms, with axes and units."""

import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from blsh_jax import spectra
from blsh_jax.config import StftConfig
from blsh_jax.files import replacing

_RANGE_DB = 70.0


def self_similarity(
    target: np.ndarray, learned: Mapping[int, np.ndarray], path: str | os.PathLike
) -> None:
    """The target self-similarity matrix beside those of codes of several lengths.

    Args:
        target: (B, B) in [0, 1].
        learned: code length L to (B, B) in [0, 1].
        path: picture to write.

    Source: [ICASSP20] figure 2.
    """
    panels = {"target": target} | {f"L = {length}": ssm for length, ssm in learned.items()}
    figure = Figure(figsize=(3.0 * len(panels) + 0.6, 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, ssm) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(ssm, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
        error = (
            "" if title == "target" else f"\nmean squared error {np.mean((ssm - target) ** 2):.4f}"
        )
        axis.set_title(title + error, fontsize=10)
        axis.set_xlabel("frame")
    axes[0].set_ylabel("frame")
    figure.colorbar(image, ax=list(axes), label="similarity", shrink=0.85)
    save(figure, path)


def spectrograms(
    signals: Mapping[str, np.ndarray], stft: StftConfig, path: str | os.PathLike
) -> None:
    """Log-magnitude spectrograms under one colour scale.

    Args:
        signals: title to (n,) samples at the rate of ``stft``.
        stft: the transform.
        path: picture to write.
    """
    figure = Figure(figsize=(3.1 * len(signals) + 0.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(signals), squeeze=False, sharey=True)[0]
    levels = {title: _decibels(signal, stft) for title, signal in signals.items()}
    top = max(level.max() for level in levels.values())
    for axis, (title, level) in zip(axes, levels.items(), strict=True):
        seconds = len(signals[title]) / stft.sample_rate
        image = axis.imshow(
            level.T,
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, stft.sample_rate / 2000),
            vmin=top - _RANGE_DB,
            vmax=top,
            cmap="magma",
        )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("time (s)")
    axes[0].set_ylabel("frequency (kHz)")
    figure.colorbar(image, ax=list(axes), label="level (dB)")
    save(figure, path)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a picture, whole or not at all."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=110)


def _decibels(signal: np.ndarray, stft: StftConfig) -> np.ndarray:
    magnitude = np.abs(np.asarray(spectra.stft(jnp.asarray(signal), stft)))
    return 20 * np.log10(np.maximum(magnitude, 1e-8))

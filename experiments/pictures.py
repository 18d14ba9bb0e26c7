"""Pictures of the paper's figures and of the course of training, drawn from records alone.

A picture carries the SHA-256 of its record, so that it can be told whether the two are in step
without drawing again.
"""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from blsh_jax import files
from blsh_jax._extras import extra

with extra("report"):
    from matplotlib.figure import Figure
    from PIL import Image

_TAG = "Record"
_STYLES = {
    ("blsh", 0.1): ("tab:blue", "-"),
    ("blsh", 0.01): ("tab:blue", "--"),
    ("lsh", 0.1): ("tab:orange", "-"),
    ("lsh", 0.01): ("tab:orange", "--"),
}


def figure3(record: dict[str, Any]) -> Figure:
    """SDR over the length of codes, mean and band of a standard deviation over subsets.

    Args:
        record: of ``experiments.figure3``.
    """
    rows = record["results"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(5.2 * len(sets) + 0.4, 3.9), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        curves = dict.fromkeys(
            (r["method"], r["dictionary_fraction"]) for r in rows if r["set"] == name
        )
        for number, (method, fraction) in enumerate(curves):
            points = [
                (r["num_bits"], r["sdr"], r["sdr_std"])
                for r in rows
                if (r["set"], r["method"], r["dictionary_fraction"]) == (name, method, fraction)
            ]
            length, mean, band = np.array(points).T
            color, line = _STYLES.get((method, fraction), (f"C{number}", "-"))
            label = f"{method.upper()}, {100 * fraction:g} % of the frames"
            axis.plot(length, mean, line, color=color, marker="o", markersize=3, label=label)
            axis.fill_between(length, mean - band, mean + band, color=color, alpha=0.25, lw=0)
        axis.set_title(f"{name} set", fontsize=10)
        axis.set_xlabel("bits of a code, L")
        axis.set_ylabel("SDR (dB)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def figure2(record: dict[str, Any], matrices: dict[str, np.ndarray]) -> Figure:
    """Self-similarity matrices, pair weights, and the error of the approximation.

    Args:
        record: of ``experiments.figure2``.
        matrices: of the .npz file beside it.
    """
    first = [name for name in matrices if not name.startswith("weights_")]
    second = [name for name in matrices if name.startswith("weights_")]
    columns = max(len(first), len(second) + 1)
    figure = Figure(figsize=(2.6 * columns + 0.6, 5.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis, name in zip(axes[0], first, strict=False):
        title = "target" if name == "target" else f"codes, L = {name.removeprefix('codes_')}"
        image = _draw(axis, matrices[name], title, "magma")
    figure.colorbar(image, ax=list(axes[0]), label="similarity", location="left", shrink=0.8)
    for axis, name in zip(axes[1], second, strict=False):
        title = f"weights after bit {name.removeprefix('weights_')}"
        image = _draw(axis, matrices[name], title, "viridis")
    figure.colorbar(image, ax=list(axes[1]), label="weight / largest", location="left", shrink=0.8)
    _draw_errors(axes[1][-1], record["results"])
    for axis in [*axes[0][len(first) :], *axes[1][len(second) : -1]]:
        axis.set_visible(False)
    return figure


def training_curves(record: dict[str, Any]) -> Figure:
    """The course of training, both modes, over the bits and over time.

    Objectives are from the same pair weights, errors of each mode's own run.

    Args:
        record: of ``experiments.bench_train``.
    """
    curves = record["curves"]
    published, shadow, fast = (curves[k] for k in ("published", "fast_from_published", "fast"))
    figure = Figure(figsize=(11, 9.5), layout="constrained")
    axes = figure.subplots(3, 2)
    panels = {
        "objective": ("Objective of each bit, from the same pair weights", shadow, axes[0, 0]),
        "epsilon": ("Error ε of each bit, each mode going its own way", fast, axes[1, 0]),
        "balance": ("Bit balance (0: the bit halves the frames)", fast, axes[2, 0]),
        "approximation_error": ("Approximation error of the code", fast, axes[2, 1]),
    }
    for name, (title, ours, axis) in panels.items():
        _draw_modes(axis, title, "bit", {"published": published, "fast": ours}, name)
    constant = published["constant_objective"]
    bits = range(1, len(constant) + 1)
    axes[0, 0].plot(bits, constant, color="#999999", label="constant code h = 1")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend(fontsize=8)
    axes[2, 0].set_ylim(-1, 1)
    time = "time (s, our own implementation of both)"
    for row, (name, ours) in enumerate((("objective", shadow), ("epsilon", fast))):
        title = ("The same objectives over time", "The same errors over time")[row]
        _draw_modes(axes[row, 1], title, time, {"published": published, "fast": ours}, name)
        axes[row, 1].set_xscale("log")
    figure.suptitle(f"{fast['num_frames']:,} frames in blocks of {fast['block_size']}")
    return figure


def save(figure: Figure, record: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a picture that names its record.

    Args:
        figure: what to write.
        record: what it was drawn from.
        path: the file (.png).
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, metadata={_TAG: digest(record)})
    files.write(path, drawn.getvalue())


def is_of(path: str | os.PathLike, record: dict[str, Any]) -> bool:
    """Whether a picture is there and was drawn from this record."""
    if not Path(path).is_file():
        return False
    with Image.open(path) as image:
        return image.info.get(_TAG) == digest(record)


def digest(record: dict[str, Any]) -> str:
    """SHA-256 of a record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _draw(axis, matrix: np.ndarray, title: str, colors: str):
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("frame")
    axis.set_ylabel("frame")
    return axis.imshow(
        matrix.astype(np.float32), vmin=0, vmax=1, cmap=colors, interpolation="nearest"
    )


def _draw_errors(axis, rows: list[dict[str, Any]]) -> None:
    for method, color in (("blsh", "tab:blue"), ("lsh", "tab:orange")):
        names = ("num_bits", "error", "unexplained")
        points = [[r[name] for name in names] for r in rows if r["method"] == method]
        length, error, share = np.array(points).T
        axis.loglog(length, error, color=color, marker="o", markersize=3, label=method.upper())
        label = f"{method.upper()}, share unexplained"
        axis.loglog(length, share, "--", color=color, marker="o", markersize=3, label=label)
    axis.set_title("error of the approximation", fontsize=9)
    axis.set_xlabel("bits of a code, L")
    axis.set_ylabel("mean squared error, or share")
    axis.grid(alpha=0.3, which="both")
    # Room for the legend below the curves.
    axis.set_ylim(bottom=axis.get_ylim()[0] / 5)
    axis.legend(fontsize=7, loc="lower left")


def _draw_modes(axis, title: str, over: str, modes: dict[str, dict[str, Any]], name: str) -> None:
    """One value of each bit in both modes, over the bits or the seconds that they took."""
    for (label, info), color in zip(modes.items(), ("#b2182b", "#2166ac"), strict=True):
        values = info[name]
        along = range(1, len(values) + 1) if over == "bit" else np.cumsum(info["seconds"])
        axis.plot(along, values, color=color, label=label, linewidth=1.4)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(over)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)

"""Pictures: those of docs/hashing.md, which this launch makes, and those of records.

    python -m experiments.pictures [--folder FOLDER]

Takes less than a minute and no recordings: what is shown is made by ``experiments.explained``.

Those of the paper's figures and of the course of training are drawn from records alone, by their
launches and by ``experiments.readme``. Such a picture carries the SHA-256 of its record, so that it
can be told whether the two are in step without drawing again.
"""

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from blsh_jax import files
from blsh_jax._extras import extra
from blsh_jax.commands import launch
from blsh_jax.evaluation import plots
from blsh_jax.paper import spectra
from experiments import explained

with extra("report"):
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
_TAG = "Record"
_CLASSES = {-1.0: ("tab:blue", "o"), 1.0: ("tab:orange", "X")}
_STYLES = {
    ("blsh", 0.1): ("tab:blue", "-"),
    ("blsh", 0.01): ("tab:blue", "--"),
    ("lsh", 0.1): ("tab:orange", "-"),
    ("lsh", 0.01): ("tab:orange", "--"),
}
# Curves of ``extensions``: trial and method to label, colour and line.
EXTENSIONS = {
    ("cosine", "lsh"): ("LSH", "tab:orange", "-"),
    ("cosine", "blsh"): ("BLSH", "tab:blue", "-"),
    ("cosine: weighted by beta", "blsh"): ("BLSH, search weighted by β", "black", ":"),
    ("cosine: 3 frames", "blsh"): ("BLSH, 3 frames", "tab:green", "-"),
    ("cosine: 3 frames windowed", "blsh"): ("BLSH, 3 frames, windowed", "tab:green", "--"),
    ("cosine: 5 frames", "blsh"): ("BLSH, 5 frames", "tab:red", "-"),
    ("cosine: 5 frames windowed", "blsh"): ("BLSH, 5 frames, windowed", "tab:red", "--"),
}


def look_up() -> Figure:
    """A frame, its nearest dictionary frames, and the mask that theirs make."""
    found = explained.look_up()
    levels = lambda magnitudes: 20 * np.log10(np.maximum(magnitudes / magnitudes.max(), 10**-2.5))
    kilohertz = spectra.bin_hertz(explained.CONFIG.separation.stft) / 1000
    figure = Figure(figsize=(10.2, 6.2), layout="constrained")
    axes = figure.subplots(2, 3, width_ratios=(3, 1.3, 3), height_ratios=(2.6, 1))
    extent = (0.0, kilohertz[-1], len(found.frames) - 0.5, -0.5)
    shown = {"aspect": "auto", "extent": extent, "interpolation": "nearest"}
    axes[0, 0].imshow(levels(found.frames), cmap="magma", **shown)
    axes[0, 0].set_title(f"dictionary: {len(found.frames)} of {found.size:,} noisy frames")
    axes[0, 2].imshow(found.masks, cmap="gray", vmin=0, vmax=1, **shown)
    axes[0, 2].set_title("their ideal masks (white: speech is stronger)")
    near = np.isin(np.arange(len(found.frames)), found.nearest)
    colors = np.where(near, "tab:red", "0.7")
    axes[0, 1].barh(np.arange(len(near)), found.cosines, height=0.8, color=colors)
    axes[0, 1].set_ylim(len(near) - 0.5, -0.5)
    axes[0, 1].set_title(f"how alike: the {near.sum()} nearest red")
    axes[0, 1].set_xlabel("cosine")
    for axis in (axes[0, 0], axes[0, 2]):
        axis.set_yticks(found.nearest, ["▶"] * len(found.nearest), color="tab:red", fontsize=6)
        axis.tick_params(axis="y", length=0)
    axes[0, 0].set_ylabel("frame")
    axes[1, 0].plot(kilohertz, levels(found.query), color="black", lw=0.8)
    axes[1, 0].set_title("the noisy frame that is looked up")
    axes[1, 0].set_ylabel("level (dB)")
    axes[1, 1].set_visible(False)
    axes[1, 2].fill_between(kilohertz, found.ideal, step="mid", color="0.85", label="ideal mask")
    mean = found.masks[found.nearest].mean(0)
    axes[1, 2].plot(kilohertz, mean, color="tab:red", lw=0.9, label="mean of the ten masks")
    axes[1, 2].set_title("the mask that it gets")
    axes[1, 2].set_ylabel("share kept")
    axes[1, 2].legend(fontsize=7, loc="upper right")
    for axis in (axes[0, 0], axes[0, 2], axes[1, 0], axes[1, 2]):
        axis.set_xlabel("frequency (kHz)")
        axis.set_xlim(0, kilohertz[-1])
    return _small_titles(figure)


def hash_codes() -> Figure:
    """Codes beside each other, bit by bit, and how many bits agree with more likeness."""
    found = explained.random_codes()
    figure = Figure(figsize=(10.2, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.1, 2))[:, 0]
    axis = above.subplots()
    near, far = found.query ^ found.near, found.query ^ found.far
    rows = [
        ("the frame", found.query, "0.35"),
        ("its nearest frame", found.near, "0.35"),
        (f"{near.sum()} bits differ", near, "tab:red"),
        ("another frame", found.far, "0.35"),
        (f"{far.sum()} bits differ", far, "tab:red"),
    ]
    for row, (_, bits, color) in enumerate(rows):
        for column, bit in enumerate(bits):
            face, ink = (color, "white") if bit else ("white", "black")
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=face, ec="0.8", lw=0.5))
            axis.text(column, row, f"{bit:d}", color=ink, ha="center", va="center", fontsize=8)
    axis.set_xlim(-0.5, len(found.query) - 0.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    numbers = [1, *range(5, len(found.query) + 1, 5)]
    axis.set_xticks([number - 1 for number in numbers], numbers)
    axis.set_xlabel("bit")
    axis.set_title(f"codes of {len(found.query)} random bits; red: exclusive or, counted")
    panels = below.subplots(1, len(found.agreeing))
    nearest = np.argsort(-found.cosines)[:10]
    for panel, (length, agreeing) in zip(panels, found.agreeing.items(), strict=True):
        panel.plot(found.cosines[::8], agreeing[::8], ".", color="0.6", markersize=2)
        panel.plot(found.cosines[nearest], agreeing[nearest], "o", color="tab:red", markersize=4)
        panel.set_title(f"{length} random bits; red: the ten frames nearest by cosine")
        panel.set_xlabel("cosine with the frame")
        panel.set_ylabel("bits that agree")
        panel.set_xlim(0, 1)
    return _small_titles(figure)


def random_hyperplanes() -> Figure:
    """Random lines and two points: near ones, distant ones, and how often they are parted."""
    figure = Figure(figsize=(10.2, 3.5), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    slopes = np.random.default_rng(7).uniform(0, np.pi, 10)
    for axis, (name, degrees) in zip(axes, {"near": 12.0, "distant": 110.0}.items(), strict=False):
        angles = np.deg2rad(35 + np.array([0.0, degrees]))
        sides = np.sin(angles[:, None] - slopes) > 0
        for slope, parts in zip(slopes, sides[0] != sides[1], strict=True):
            along = 1.4 * np.array([-1, 1])
            color = "tab:red" if parts else "0.75"
            axis.plot(along * np.cos(slope), along * np.sin(slope), color=color, lw=1.2)
        axis.plot(np.cos(angles), np.sin(angles), "o", color="tab:blue", markersize=8, zorder=3)
        count = int((sides[0] != sides[1]).sum())
        axis.set_title(f"{name} points: {count} of {len(slopes)} lines part them")
        axis.set_aspect("equal")
        axis.set_xlabel("first feature")
        axis.set_ylabel("second feature")
    between = np.arange(0, 181, 10)
    axes[2].plot([0, 180], [0, 100], color="0.7", label="expected: angle / 180°")
    for count, mark in ((25, "x"), (1000, "o")):
        share = 100 * explained.parted(between, count)
        axes[2].plot(between, share, mark, markersize=4, label=f"{count:,} random lines")
    axes[2].set_title("bits that differ")
    axes[2].set_xlabel("angle between the points (degrees)")
    axes[2].set_ylabel("share of the lines that part them (%)")
    axes[2].legend(fontsize=8)
    axes[2].grid(alpha=0.3)
    return _small_titles(figure)


def adaboost() -> Figure:
    """Two rings, and what 20 and 500 lines make of them."""
    points, labels = explained.rings()
    ensemble = explained.adaboost(points, labels, 500)
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    around = np.linspace(-2.7, 2.7, 150)
    grid = np.stack(np.meshgrid(around, around), axis=-1)
    for axis, count in zip(figure.subplots(1, 2), (20, 500), strict=True):
        lines = ensemble.first(count)
        side = np.sign(lines.votes(grid))
        axis.contourf(around, around, side, levels=(-2, 0, 2), colors=("#d6e6f4", "#fde6d0"))
        votes = lines.votes(points)
        weights = np.exp(-labels * votes)
        for label, (color, mark) in _CLASSES.items():
            mine = labels == label
            sizes = 9 + 50 * np.minimum(weights[mine], 3)
            axis.scatter(*points[mine].T, s=sizes, c=color, marker=mark, edgecolors="white", lw=0.4)
        wrong = int((labels * votes <= 0).sum())
        axis.set_title(f"{count} lines: {wrong} of {len(labels)} points on the wrong side")
        axis.set_aspect("equal")
        axis.set_xlabel("first feature")
        axis.set_ylabel("second feature")
    return _small_titles(figure)


def learned_bits(learned: explained.Learned) -> Figure:
    """The target beside the codes of 1, 5 and 100 bits."""
    names = {1: "1 bit", 5: "5 bits", 100: "100 bits"}
    panels = {name: learned.so_far(count) for count, name in names.items()}
    return plots.self_similarity(learned.target, panels)


def pair_weights(learned: explained.Learned) -> Figure:
    """Target, prediction, difference and pair weights after 1, 5 and 25 bits."""
    stages = {
        f"after {count} bit{'s' * (count > 1)}": (learned.so_far(count), learned.weights(count))
        for count in (1, 5, 25)
    }
    return plots.pair_weights(learned.target, stages)


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
        _over_lengths(axis, name)
        axis.legend(fontsize=8)
    return figure


def extensions(record: dict[str, Any]) -> Figure:
    """SDR over the length of codes, for LSH, BLSH, and what the paper would try next.

    Args:
        record: of ``experiments.authors``.
    """
    figure = Figure(figsize=(10.8, 3.9), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("closed", "open"), strict=True):
        for (trial, method), (label, color, line) in EXTENSIONS.items():
            points = [
                (row["num_bits"], row["sdr"])
                for row in record["results"]
                if (row["trial"], row["method"]) == (trial, method)
                if (row["set"], row["part"]) == (name, 1.0)
            ]
            if points:
                axis.plot(*np.array(points).T, line, color=color, label=label, ms=3, marker="o")
        _over_lengths(axis, name)
    axis.legend(fontsize=7)
    return figure


def _over_lengths(axis: Any, name: str) -> None:
    """What axes say of SDR on a set over the length of codes."""
    axis.set_title(f"{name} set", fontsize=10)
    axis.set_xlabel("bits of a code, L")
    axis.set_ylabel("SDR (dB)")
    axis.grid(alpha=0.3)


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


def explanations() -> dict[str, Callable[[], Figure]]:
    """The pictures of docs/hashing.md by the names of their files."""
    learned = functools.cache(explained.learned_bits)
    return {
        "hashing_look_up": look_up,
        "hashing_hyperplanes": random_hyperplanes,
        "hashing_codes": hash_codes,
        "hashing_adaboost": adaboost,
        "hashing_learned_bits": lambda: learned_bits(learned()),
        "hashing_pair_weights": lambda: pair_weights(learned()),
    }


def _small_titles(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.set_title(axis.get_title(), fontsize=9)
        axis.tick_params(labelsize=8)
    return figure


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


def _define_flags() -> None:
    flags.DEFINE_string("folder", str(FOLDER), "Folder that gets the pictures.")


def main() -> None:
    """Make the pictures of docs/hashing.md."""
    for name, draw in explanations().items():
        path = Path(flags.FLAGS.folder) / f"{name}.png"
        plots.save(draw(), path)
        print(f"wrote {path.name}", flush=True)


if __name__ == "__main__":
    launch.run(_define_flags, main)

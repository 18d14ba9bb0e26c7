"""Draw the course of training, both modes, from a record of experiments.bench_train.

    python -m experiments.plot_training [--record FILE] [--output docs/figures/training_curves.png]

Takes a second. Six panels: the objective of the published mode, of the fast mode from the same pair
weights, and of the constant code; the error of each bit in each mode's own run; both over the bits
and over time; the bit balance; the approximation error of the growing code.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from blsh_jax.files import replacing
from experiments import flags as launch

_ROOT = Path(__file__).parents[1]
Line = tuple[str, list[float], str]  # label, values, colour

_PUBLISHED, _FAST, _CONSTANT = "#b2182b", "#2166ac", "#999999"


def _define_flags() -> None:
    record = _ROOT / "experiments" / "results" / "bench_train.json"
    figure = _ROOT / "docs" / "figures" / "training_curves.png"
    flags.DEFINE_string("record", str(record), "Record of experiments.bench_train.")
    flags.DEFINE_string("output", str(figure), "Picture to write (.png).")


def main(argv: list[str]) -> None:
    """Record to picture."""
    del argv
    record = json.loads(Path(flags.FLAGS.record).read_text())
    figure = draw(record["curves"])
    with replacing(flags.FLAGS.output) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
    print(f"wrote {flags.FLAGS.output}")


def draw(curves: dict[str, Any]) -> Figure:
    """The figure of one record's ``curves``."""
    published, shadow, fast = (curves[k] for k in ("published", "fast_from_published", "fast"))
    figure = Figure(figsize=(11, 9.5), dpi=110, layout="constrained")
    axes = figure.subplots(3, 2)
    constant = ("constant code h = 1", published["constant_objective"], _CONSTANT)
    objectives = _both(published["objective"], shadow["objective"])
    errors = _both(published["epsilon"], fast["epsilon"])
    _panel(axes[0, 0], "Objective of each bit, from the same pair weights", *objectives, constant)
    _panel(axes[1, 0], "Error ε of each bit, each mode going its own way", *errors)
    _over_time(axes[0, 1], "The same objectives over time", objectives, (published, shadow))
    _over_time(axes[1, 1], "The same errors over time", errors, (published, fast))
    axes[0, 0].set_ylim(bottom=0)
    balances = _both(published["balance"], fast["balance"])
    _panel(axes[2, 0], "Bit balance (0: the bit halves the frames)", *balances)
    axes[2, 0].set_ylim(-1, 1)
    reached = _both(published["approximation_error"], fast["approximation_error"])
    _panel(axes[2, 1], "Approximation error of the code", *reached)
    figure.suptitle(f"{fast['num_frames']:,} frames in blocks of {fast['block_size']}")
    return figure


def _both(published: list[float], fast: list[float]) -> list[Line]:
    return [("published", published, _PUBLISHED), ("fast", fast, _FAST)]


def _panel(axes, title: str, *lines: Line) -> None:
    for label, values, color in lines:
        axes.plot(range(1, len(values) + 1), values, color=color, label=label, linewidth=1.4)
    axes.set_xlabel("bit")
    _finish(axes, title)


def _over_time(axes, title: str, lines: list[Line], infos: tuple[dict, dict]) -> None:
    """Lines over the seconds that their mode had taken when each bit was learned."""
    for (label, values, color), info in zip(lines, infos, strict=True):
        seconds = np.cumsum(info["seconds"])
        axes.plot(seconds, values, color=color, label=label, linewidth=1.4)
    axes.set_xscale("log")
    axes.set_xlabel("time (s, our own implementation of both)")
    _finish(axes, title)


def _finish(axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    launch.run(_define_flags, main)

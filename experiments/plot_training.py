"""Draw the course of training, both modes, from a record of experiments.bench_train.

    python -m experiments.plot_training [--record FILE] [--output docs/figures/training_curves.png]

Takes a second. Four panels over the bits: the objective of the published mode, of the fast mode
from the same pair weights, and of the constant code; the error of each bit in each mode's own run;
the bit balance; the approximation error of the growing code.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from blsh_jax.files import replacing
from experiments import flags as launch

_ROOT = Path(__file__).parents[1]
_PUBLISHED, _FAST, _CONSTANT = "#b2182b", "#2166ac", "#999999"


def _define_flags() -> None:
    record = _ROOT / "experiments" / "results" / "bench_train_curves.json"
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
    figure = Figure(figsize=(11, 6.5), dpi=110, layout="constrained")
    axes = figure.subplots(2, 2)
    _panel(
        axes[0, 0],
        "Objective of each bit, from the same pair weights",
        ("published", published["objective"], _PUBLISHED),
        ("fast", shadow["objective"], _FAST),
        ("constant code h = 1", published["constant_objective"], _CONSTANT),
    )
    axes[0, 0].set_ylim(bottom=0)
    _panel(
        axes[0, 1],
        "Error ε of each bit, each mode going its own way",
        ("published", published["epsilon"], _PUBLISHED),
        ("fast", fast["epsilon"], _FAST),
    )
    _panel(
        axes[1, 0],
        "Bit balance (0: the bit halves the frames)",
        ("published", published["balance"], _PUBLISHED),
        ("fast", fast["balance"], _FAST),
    )
    axes[1, 0].set_ylim(-1, 1)
    _panel(
        axes[1, 1],
        "Approximation error of the code",
        ("published", published["approximation_error"], _PUBLISHED),
        ("fast", fast["approximation_error"], _FAST),
    )
    figure.suptitle(f"{fast['num_frames']:,} frames in blocks of {fast['block_size']}")
    return figure


def _panel(axes, title: str, *lines: tuple[str, list[float], str]) -> None:
    for label, values, color in lines:
        axes.plot(range(1, len(values) + 1), values, color=color, label=label, linewidth=1.4)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("bit")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    launch.run(_define_flags, main)

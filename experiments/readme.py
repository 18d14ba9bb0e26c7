"""Write the tables of README.md and docs/ again from the records in experiments/results.

    python -m experiments.readme [--check]

A table stands between `<!-- table NAME -->` and `<!-- end -->`; everything else is left alone.
--check writes nothing and fails if a page is not in step with its records.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from blsh_jax.files import replacing

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"<!-- table ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_METHODS = {
    "noisy": "unprocessed mixture",
    "lsh": "LSH, random projections",
    "blsh": "BLSH",
    "knn": "KNN on raw spectra",
    "ibm": "ideal binary mask",
    "irm": "ideal ratio mask",
}


def scores(name: str) -> str:
    """SDR, SIR, SAR and SI-SDR of one evaluation."""
    rows = _record(name)["results"]
    lines = ["| method | bits | SDR | SIR | SAR | SI-SDR |", "|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        values = " | ".join(_decibels(row[key]) for key in ("sdr", "sir", "sar", "si_sdr"))
        lines.append(f"| {_METHODS[row['method']]} | {row['num_bits'] or ''} | {values} |")
    return "\n".join(lines)


def closed_and_open() -> str:
    """SDR on both test sets side by side."""
    sets = [{_system(row): row for row in _record(name)["results"]} for name in ("closed", "open")]
    counts = [next(iter(rows.values()))["utterances"] for rows in sets]
    lines = [
        f"| method | bits | closed set ({counts[0]} mixtures) | open set ({counts[1]} mixtures) |",
        "|---|--:|--:|--:|",
    ]
    for method, num_bits in sets[0]:
        values = " | ".join(f"{rows[method, num_bits]['sdr']:.2f}" for rows in sets)
        lines.append(f"| {_METHODS[method]} | {num_bits or ''} | {values} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "demo": lambda: scores("demo"),
    "closed-and-open": closed_and_open,
}


def render(text: str) -> str:
    """A page with every table made again.

    Raises:
        ValueError: a table that nothing makes.
    """

    def replace(match: re.Match) -> str:
        name = match[1]
        if name not in TABLES:
            raise ValueError(f"no table {name!r}: choose one of {', '.join(sorted(TABLES))}")
        return f"<!-- table {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return _BLOCK.sub(replace, text)


def stale() -> list[Path]:
    """Pages that are not in step with their records."""
    return [page for page in PAGES if render(page.read_text()) != page.read_text()]


def _record(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _decibels(value: float | None) -> str:
    return "∞" if value is None else f"{value:.2f}"


def _system(row: dict[str, Any]) -> tuple[str, int | None]:
    return row["method"], row["num_bits"]


def main(argv: list[str]) -> None:
    """Write the pages, or check them."""
    del argv
    pages = stale()
    if flags.FLAGS.check and pages:
        sys.exit(f"not in step with their records: {', '.join(page.name for page in pages)}")
    for page in pages:
        with replacing(page) as temporary:
            temporary.write_text(render(page.read_text()))
        print(f"wrote {page.name}")


def run() -> None:
    """Entry point."""
    flags.DEFINE_bool("check", False, "Fail if a page is not in step with its records.")
    app.run(main)


if __name__ == "__main__":
    run()

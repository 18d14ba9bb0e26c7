"""Write the tables and pictures of README.md and docs/ again from the records.

    python -m experiments.readme [--check]

Records are in experiments/results. A table stands between `<!-- table NAME -->` and `<!-- end -->`;
everything else is left alone. Pictures go to docs/figures. --check writes nothing and fails if a
page or a picture is not in step with its record.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

from blsh_jax.files import replacing
from experiments import claims, pictures

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"<!-- table ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_METHODS = {
    "noisy": "unprocessed mixture",
    "lsh": "LSH, random projections",
    "blsh": "BLSH",
    "lsh_origin": "LSH, hyperplanes through the origin",
    "blsh_cosine": "BLSH, cosine target",
    "blsh_cross_entropy": "BLSH, fitted by cross-entropy",
    "knn": "KNN on raw spectra",
    "knn_mel": "KNN on mel spectra",
    "fc": "fully connected network",
    "blstm": "bidirectional LSTM",
    "logmmse": "logMMSE",
    "noisereduce": "noisereduce",
    "rnnoise": "RNNoise",
    "rnnoise_lead_in": "RNNoise, with the lead-in",
    "ibm": "ideal binary mask",
    "irm": "ideal ratio mask",
}

# The recipe's features are more than spectra.
_GENERAL_METHODS = _METHODS | {"knn": "KNN on the same features"}


def scores(name: str) -> str:
    """SDR, SIR, SAR and SI-SDR of one evaluation."""
    return _table(
        ["method", "bits", "SDR", "SIR", "SAR", "SI-SDR"],
        [
            [_METHODS[row["method"]], str(row["num_bits"] or "")]
            + [_decibels(row[key]) for key in ("sdr", "sir", "sar", "si_sdr")]
            for row in _record(name)["results"]
        ],
    )


def closed_and_open(prefix: str = "") -> str:
    """SDR on both test sets side by side."""
    names = _GENERAL_METHODS if prefix else _METHODS
    sets = [
        {_system(row): row for row in _record(prefix + name)["results"]}
        for name in ("closed", "open")
    ]
    counts = [next(iter(rows.values()))["utterances"] for rows in sets]
    heads = [
        f"{name} set ({n} mixtures)" for name, n in zip(("closed", "open"), counts, strict=True)
    ]
    return _table(
        ["method", "bits", *heads],
        [
            [names[method], str(num_bits or "")]
            + [f"{rows[method, num_bits]['sdr']:.2f}" for rows in sets]
            for method, num_bits in sets[0]
        ],
    )


def table1(*names: str) -> str:
    """The paper's table 1, ours, or a part of it: the systems of these records."""
    found = {
        (_sized(row["method"], record["config"]["networks"]), row["num_bits"], row["set"]): row
        for record in map(_record, names)
        for row in record["results"]
    }
    sets = list(dict.fromkeys(name for *_, name in found))
    heads = [head for name in sets for head in (f"{name} SDR", "SIR", "SAR")]
    rows = []
    for system, num_bits in dict.fromkeys(key[:2] for key in found):
        of_sets = [found[system, num_bits, name] for name in sets]
        measures = [_decibels(of_set[key]) for of_set in of_sets for key in ("sdr", "sir", "sar")]
        row = of_sets[0]
        costs = [_count(row["float_operations"]), _count(row["word_operations"])]
        costs += [f"{row['model_bytes'] / 1e6:.1f}", f"{row['seconds_per_minute']:.2f}"]
        if row["method"] in ("noisy", "ibm", "irm"):
            costs = [""] * 4
        rows.append([system, str(num_bits or ""), *measures, *costs])
    costs = ["float operations", "word operations", "MB", "s per minute"]
    return _table(["system", "bits", *heads, *costs], rows)


def _sized(method: str, networks: dict[str, Any]) -> str:
    """The name of a method, and of a network its size."""
    if method not in networks:
        return _METHODS[method]
    network = networks[method]
    return f"{_METHODS[method]}, {network['num_layers']} × {network['num_units']}"


def claim_table() -> str:
    """The paper's claims and what became of them."""
    names = ("table1", "figure3", "figure3_one_draw", "audio_examples", "closed", "open")
    return _table(
        ["the paper's claim", "here", "figures", "record"],
        [
            [v.claim, _verdict(v), v.figures, f"`{v.record}`"]
            for v in claims.judge({name: _record(name) for name in names})
        ],
        num_texts=4,
    )


def _verdict(found: claims.Verdict) -> str:
    word = "**true**" if found.holds else "**false**"
    return f"{word} with {found.training}" if found.training else word


def figure3_table() -> str:
    """The points of figure 3."""
    results = [row for row in _record("figure3")["results"] if row["set"] == "closed"]
    curves = list(dict.fromkeys((row["method"], row["dictionary_fraction"]) for row in results))
    points = {(r["method"], r["dictionary_fraction"], r["num_bits"]): r for r in results}
    rows = []
    for length in dict.fromkeys(row["num_bits"] for row in results):
        found = [points[*curve, length] for curve in curves]
        rows.append([str(length)] + [f"{r['sdr']:.2f} ± {r['sdr_std']:.2f}" for r in found])
    heads = [f"{method.upper()}, {100 * part:g} %" for method, part in curves]
    return _table(["bits", *heads], rows, num_texts=0)


def variation_table() -> str:
    """SDR with one thing changed at a time."""
    results = _record("variations")["results"]
    sets = list(dict.fromkeys(row["set"] for row in results))
    lengths = list(dict.fromkeys(row["num_bits"] for row in results))
    places = [(name, length) for name in sets for length in lengths]
    found = {(r["suspect"], r["value"], r["method"], r["set"], r["num_bits"]): r for r in results}
    rows = []
    for suspect, value, method in dict.fromkeys(key[:3] for key in found):
        scored = [found.get((suspect, value, method, *place)) for place in places]
        changed = "nothing" if suspect == "none" else f"{suspect}: {value}"
        values = ["" if row is None else f"{row['sdr']:.2f}" for row in scored]
        rows.append([changed, method.upper().split("_")[0], *values])
    heads = [f"{name}, {length}" for name, length in places]
    return _table(["changed", "system", *heads], rows, num_texts=2)


def unseen_table() -> str:
    """SDR in noises left out, a configuration a line, a system a column."""
    results = _record("unseen")["results"]
    systems = list(dict.fromkeys(_system(row) for row in results))
    found = {(row["step"], *_system(row)): row["sdr"] for row in results}
    heads = [f"{_GENERAL_METHODS[method]} {num_bits or ''}".strip() for method, num_bits in systems]
    return _table(
        ["configuration", *heads],
        [
            [step, *(f"{found[step, *system]:.2f}" for system in systems)]
            for step in dict.fromkeys(row["step"] for row in results)
        ],
    )


def lengths_table(name: str, texts: Mapping[str, str], scores: Mapping[str, str]) -> str:
    """Scores of a record, a length of codes and score a column.

    Args:
        name: of the record.
        texts: what tells its lines apart: names in the record, to heads of columns.
        scores: names in the record, to what the heads of their columns say behind the length.
    """
    results = _record(name)["results"]
    lengths = list(dict.fromkeys(row["num_bits"] for row in results))
    found = {(*(row[text] for text in texts), row["num_bits"]): row for row in results}
    heads = [f"{length} bits{behind}" for behind in scores.values() for length in lengths]
    return _table(
        [*texts.values(), *heads],
        [
            [*map(str, line)]
            + [f"{found[*line, length][score]:.2f}" for score in scores for length in lengths]
            for line in dict.fromkeys(key[:-1] for key in found)
        ],
        num_texts=len(texts),
    )


def rotation_table(name: str = "rotation") -> str:
    """Scores in noises that are unseen in turn, a ratio and a system a line."""
    results = _record(name)["results"]
    measures = {"sdr": "SDR", "si_sdr": "SI-SDR", "stoi": "STOI", "pesq": "PESQ"}
    measures = {key: head for key, head in measures.items() if key in results[0]}
    return _table(
        ["method", "ratio", "bits", *measures.values(), "noises below the mixture"],
        [
            [_GENERAL_METHODS[row["method"]], f"{row['snr_db']:g} dB", str(row["num_bits"] or "")]
            + [f"{row[measure]:.2f}" for measure in measures]
            + [f"{len(row['below_mixture'])} of {row['noises']}"]
            for row in results
        ],
    )


def rotation_summary() -> str:
    """SDR in noises that are unseen in turn, a system a line."""
    results = _record("rotation")["results"]
    snrs = list(dict.fromkeys(row["snr_db"] for row in results))
    found = {(*_system(row), row["snr_db"]): row["sdr"] for row in results}
    return _table(
        ["method", "bits", *(f"mixtures at {snr:g} dB" for snr in snrs)],
        [
            [_GENERAL_METHODS[method], str(num_bits or "")]
            + [f"{found[method, num_bits, snr]:.2f}" for snr in snrs]
            for method, num_bits in dict.fromkeys(_system(row) for row in results)
        ],
    )


def rotation_noises() -> str:
    """SDR by unseen noise at the lowest ratio, a noise a line."""
    rows = _record("rotation")["by_noise"]
    lowest = min(row["snr_db"] for row in rows)
    found = {(row["noise"], *_system(row)): row for row in rows if row["snr_db"] == lowest}
    systems = list(dict.fromkeys(key[1:] for key in found))
    heads = [f"{_GENERAL_METHODS[method]} {num_bits or ''}".strip() for method, num_bits in systems]
    return _table(
        ["unseen noise", *heads],
        [
            [noise, *(f"{found[noise, *system]['sdr']:.2f}" for system in systems)]
            for noise in dict.fromkeys(key[0] for key in found)
        ],
    )


def _figure2() -> Figure:
    with np.load(RESULTS / "figure2.npz", allow_pickle=False) as file:
        return pictures.figure2(_record("figure2"), {name: file[name] for name in file.files})


# Pictures by the record that each is drawn from.
PICTURES: dict[str, Callable[[], Figure]] = {
    "figure2": _figure2,
    "figure3": lambda: pictures.figure3(_record("figure3")),
}


def benchmark(name: str) -> str:
    """Rows of a benchmark: ours, the reference in the same run, and their ratio."""
    return _table(
        ["", "size", "ours", "reference", "ratio", "unit"],
        [
            [row["name"], row["size"]]
            + [_digits(row[key]) for key in ("ours", "reference", "ratio")]
            + [row["unit"]]
            for row in _record(name)["results"]
        ],
        num_texts=2,
    )


def search_table() -> str:
    """The search against FAISS and a naive top_k, a line per size."""
    results = {
        (row["name"].partition(" : ")[2], row["size"]): row
        for row in _record("bench_search")["results"]
    }
    rows = []
    for (reference, size), row in results.items():
        if not reference.startswith("faiss"):
            continue
        naive = results.get(("lax.top_k on floats", size), {"ratio": None})
        rows.append(
            [size, f"{row['ours_per_core']:.1f}", f"{row['reference_per_core']:.2f}"]
            + [f"{row['core_ratio']:.1f}", f"{row['ratio']:.1f}", _digits(naive["ratio"])]
            + [f"{row['peak_memory_mb']:.0f} MB"]
        )
    heads = ["size", "10⁹ pairs per core second", "FAISS", "ratio, core seconds", "ratio, clock"]
    return _table([*heads, "naive `lax.top_k`, ratio, clock", "working memory"], rows)


def weighted_table() -> str:
    """The weighted search against the unweighted one, a line per codes and weights."""
    heads = ["size", "weights", "10⁹ pairs per core second", "unweighted"]
    return _table(
        [*heads, "times slower, core seconds", "times slower, clock"],
        [
            [row["size"], row["weights"], f"{row['ours_per_core']:.2f}"]
            + [f"{row['reference_per_core']:.1f}", f"{1 / row['core_ratio']:.1f}"]
            + [f"{1 / row['ratio']:.1f}"]
            for row in _record("bench_search")["results"]
            if "weights" in row
        ],
        num_texts=2,
    )


def starts_table() -> str:
    """Objectives of a bit by where it starts and what follows."""
    results = _record("starts")["results"]
    bits = sorted({row["bit"] for row in results})
    rows = []
    for start in dict.fromkeys(row["start"] for row in results):
        of_start = {row["bit"]: row for row in results if row["start"] == start}
        values = [of_start[bit][name] for bit in bits for name in ("best", "after_steps")]
        rows.append([start, *("" if value is None else f"{value:.4f}" for value in values)])
    heads = [head for bit in bits for head in (f"bit {bit}", "after steps")]
    return _table(["start", *heads], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int = 1) -> str:
    """A Markdown table whose first ``num_texts`` columns are texts, the others figures."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    marks = "|" + "---|" * num_texts + "--:|" * (len(heads) - num_texts)
    return "\n".join([line(heads), marks, *map(line, rows)])


def _digits(value: float | None) -> str:
    """Three digits, or whole numbers above; nothing where there is no reference."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


TABLES: dict[str, Callable[[], str]] = {
    "bench-metrics": lambda: benchmark("bench_metrics"),
    "bench-search": search_table,
    "bench-weighted": weighted_table,
    "bench-train": lambda: benchmark("bench_train"),
    "demo": lambda: scores("demo"),
    "closed-and-open": closed_and_open,
    "starts": starts_table,
    "general": lambda: closed_and_open("general_"),
    "general-networks": lambda: table1(
        *(f"table1_general{made}" for made in ("_16", "", "_150", "_1024"))
    ),
    "unseen": unseen_table,
    "features": lambda: lengths_table(
        "features", {"features": "features", "num_features": "values"}, {"sdr": ""}
    ),
    "alternatives": lambda: lengths_table(
        "alternatives", {"part": "in place of", "alternative": "alternative"}, {"sdr": ""}
    ),
    "materials": lambda: lengths_table(
        "materials", {"material": "material"}, {"sdr": "", "sdr_in_rooms": ", heard in rooms"}
    ),
    "dictionaries": lambda: lengths_table(
        "dictionaries", {"dictionary": "dictionary", "entries": "entries"}, {"sdr": ""}
    ),
    "rotation": rotation_table,
    "rotation-small": lambda: rotation_table("rotation_small"),
    "rotation-summary": rotation_summary,
    "rotation-noises": rotation_noises,
    "table1": lambda: table1("table1"),
    "figure3": figure3_table,
    "claims": claim_table,
    "variations": variation_table,
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


def stale_pictures() -> list[str]:
    """Pictures that are not in step with their records, or not there."""
    return [name for name in PICTURES if not pictures.is_of(FIGURES / f"{name}.png", _record(name))]


def _count(operations: int) -> str:
    """A number of operations, readable: 154 k, 51 M."""
    if operations == 0:
        return "0"
    unit = "M" if operations >= 1e6 else "k"
    return f"{operations / (1e6 if unit == 'M' else 1e3):.3g} {unit}"


def _record(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _decibels(value: float | None) -> str:
    return "∞" if value is None else f"{value:.2f}"


def _system(row: dict[str, Any]) -> tuple[str, int | None]:
    return row["method"], row["num_bits"]


def main(argv: list[str]) -> None:
    """Write the pages and pictures, or check them."""
    del argv
    pages, drawings = stale(), stale_pictures()
    if flags.FLAGS.check and (pages or drawings):
        names = [page.name for page in pages] + drawings
        sys.exit(f"not in step with their records: {', '.join(names)}")
    for name in drawings:
        pictures.save(PICTURES[name](), _record(name), FIGURES / f"{name}.png")
        print(f"drew {name}.png")
    for page in pages:
        with replacing(page) as temporary:
            temporary.write_text(render(page.read_text()))
        print(f"wrote {page.name}")


def run() -> None:
    """Entry point."""
    flags.DEFINE_bool("check", False, "Fail if a page or picture is not in step with its records.")
    app.run(main)


if __name__ == "__main__":
    run()

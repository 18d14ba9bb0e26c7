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

from blsh_jax.evaluation import NAMES
from blsh_jax.files import replacing
from experiments import claims, pictures

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"<!-- table ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_RESIDUAL = "residual bits, fine-tuned"  # of a learner that is gone: they were not boosted

# Rows of older records by what their settings are called now.
_STEPS = {
    "varied mixtures": "augmented mixtures",
    "log-mel spectra, levels, voicing and lead-in": "log-mel spectra, levels, voicing and pre-roll",
    "bits from residuals": "residual bits",
    "hyperplanes refined together": "fine-tuning",
    "rumble is noise": "high-pass",
    "the utterance's own evidence": "speech presence",
    "recorded noise alone": "no synthetic noise",
    "every mixture varied": "every mixture augmented",
    "varied mixtures up to 15 dB": "augmented mixtures up to 15 dB",
    "boosted bits refined": "boosted bits on the likeness of frames, fine-tuned",
    "no lead-in": "no pre-roll",
}

# The rows of retired experiments that told something, by what they are called in docs/findings.md.
_RECIPE = "the recipe then: residual bits, fine-tuned"
_BITS = {
    "the recipe": _RECIPE,
    "LSH, random projections": "random projections",
    "iterative quantization": "iterative quantization",
    "residuals, likeness of frames": "residual bits, likeness of frames",
    "residuals, likeness of speech and of noise": "residual bits, likeness of speech and of noise",
    "not boosted: equal weights, random starts": "not boosted: equal weights, random starts",
    "boosted, likeness of frames": "boosted, likeness of frames",
    "boosted, kernel a third as wide": "the same, kernel a third as wide",
    "boosted, likeness of masks": "boosted, likeness of masks",
    "boosted, likeness of speech and of noise": "boosted, likeness of speech and of noise",
    "boosted, speech and noise, weights by a fifth of beta": "the same, weights by a fifth of β",
    "boosted, speech and noise, weights capped": "the same, weights capped",
    "boosted, speech and noise, logistic weights": "the same, logistic weights",
    "boosted, speech and noise, nearest pairs first": "the same, nearest pairs first",
    "boosted bits, weighted by beta": "boosted, likeness of frames, search weighted by β",
}
_USES = {
    "the recipe": _RECIPE,
    "half of the frames, at random": "dictionary: half of the frames, at random",
    "half of the frames, those foretold best": "dictionary: the half that neighbours predict best",
    "four groups of bands, each with its part of the bits": "a search for each of four band groups",
    "80 neighbours": "80 neighbours",
    "nearer neighbours count more": "nearer neighbours count more",
    "smoothed over time": "masks smoothed over time",
    "ratio masks of four bits": "ratio masks of four bits",
    "neighbours alone": "speech presence: neighbours alone",
    "neighbours and the frame, not the past": "speech presence: neighbours and frame, not the past",
    "equal weights at all frequencies": "speech presence: equal weights at all frequencies",
    "20 dB at most": "attenuation of 20 dB at most",
}
_DICTIONARIES = {
    "frames that were learned on, 8192": "8,192 frames that were learned on",
    "other frames of the same mixtures, 8192": "8,192 other frames of the same mixtures",
    "frames of other mixtures, 8192": "8,192 frames of other mixtures",
    "frames of other mixtures, 32768": "32,768 frames of other mixtures",
    "frames of other mixtures, 131072": "131,072 frames of other mixtures",
    "frames of other mixtures, 2097152": "2,097,152 frames of other mixtures",
    "all of these, merged, 32768": "all of these, merged into 32,768",
}
_FEATURES = {
    "the recipe's": "the recipe's, 176 values",
    "mel bands to the power of 0.3": "mel bands to the power of 0.3",
    "floor: least of past and future": "noise floor: least of past and future",
    "levels less their mean over the utterance": "levels less their mean over the utterance",
    "64 principal components": "64 principal components",
    "64 components that foretell speech and noise": "64 components that predict speech and noise",
    "Gaussian kernels around 300 frames": "Gaussian kernels around 300 frames",
}
_MATERIALS = {
    "the recipe": _RECIPE,
    "half of the speech in rooms": "half of the speech in rooms",
    "all of the speech in rooms": "all of the speech in rooms",
    "made voices beside the recorded": "synthetic voices beside the recorded",
}
_STARTS = {
    "random directions": "random directions",
    "generalised eigenvectors": "generalised eigenvectors",
    "best of fast, one-flip polish, refitted": "best of the fast mode, one-flip polish, refitted",
}


def scores(name: str) -> str:
    """SDR, SIR, SAR and SI-SDR of one evaluation."""
    record = _record(name)
    names = row_names(record)
    return _table(
        ["method", "bits", "SDR", "SIR", "SAR", "SI-SDR"],
        [
            [names[row["method"]], str(row["num_bits"] or "")]
            + [_decibels(row[key]) for key in ("sdr", "sir", "sar", "si_sdr")]
            for row in record["results"]
        ],
    )


def row_names(record: dict[str, Any]) -> dict[str, str]:
    """What the methods of a record are, by its configuration."""
    config = record["config"]
    settings = config.get("model") or config.get("train") or config
    names = NAMES | {"rnnoise_lead_in": NAMES["rnnoise_pre_roll"]}  # of older records
    if settings.get("learner") == "residual":
        names["blsh"] = _RESIDUAL
    features = settings.get("separation", settings)["features"]
    if features["kind"] != "magnitude" or features.get("levels"):
        names["knn"] = "KNN on the same features"
    return names


def closed_and_open(prefix: str = "") -> str:
    """SDR on both test sets side by side."""
    records = [_record(prefix + name) for name in ("closed", "open")]
    names = row_names(records[0])
    sets = [{_system(row): row for row in record["results"]} for record in records]
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
        (_sized(row["method"], record), row["num_bits"], row["set"]): row
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


def _sized(method: str, record: dict[str, Any]) -> str:
    """The name of a method, and of a network its size."""
    name, networks = row_names(record)[method], record["config"]["networks"]
    if method not in networks:
        return name
    return f"{name}, {networks[method]['num_layers']} × {networks[method]['num_units']}"


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


def variation_table(name: str = "variations") -> str:
    """SDR with one thing changed at a time."""
    record = _record(name)
    results = record["results"]
    sets = list(dict.fromkeys(row["set"] for row in results))
    lengths = list(dict.fromkeys(row["num_bits"] for row in results))
    places = [(name, length) for name in sets for length in lengths]
    found = {(r["suspect"], r["value"], r["method"], r["set"], r["num_bits"]): r for r in results}
    changes = {("none", "as configured"): "nothing"}
    if "separation" not in record["config"]:  # before the published mode took the parabola's slope
        changes["mode", "published"] = "mode: published, but the line's slope"
    rows = []
    for suspect, value, method in dict.fromkeys(key[:3] for key in found):
        scored = [found.get((suspect, value, method, *place)) for place in places]
        changed = changes.get((suspect, value), f"{suspect}: {value}")
        values = ["" if row is None else f"{row['sdr']:.2f}" for row in scored]
        rows.append([changed, method.upper().split("_")[0], *values])
    heads = [f"{name}, {length}" for name, length in places]
    return _table(["changed", "system", *heads], rows, num_texts=2)


def unseen_table() -> str:
    """SDR in noises left out, a configuration a line, a system a column."""
    record = _record("unseen")
    results, names = record["results"], row_names(record)
    if names["blsh"] == _RESIDUAL:  # from one of its rows on, which says so
        names["blsh"] = "learned bits"
    systems = list(dict.fromkeys(_system(row) for row in results))
    found = {(row["step"], *_system(row)): row["sdr"] for row in results}
    heads = [f"{names[method]} {num_bits or ''}".strip() for method, num_bits in systems]
    return _table(
        ["configuration", *heads],
        [
            [_STEPS.get(step, step), *(f"{found[step, *system]:.2f}" for system in systems)]
            for step in dict.fromkeys(row["step"] for row in results)
        ],
    )


def findings_table(
    name: str, text: str, rows: Mapping[str, str], scores: Mapping[str, str], count: str = ""
) -> str:
    """Some rows of the record of a retired experiment, a length of codes and score a column.

    Args:
        name: of the record.
        text: what tells its rows apart: a name in the record, and the head of their column.
        rows: which of them, to what they are called here.
        scores: names in the record, to what the heads of their columns say behind the length.
        count: a number in the record that tells rows apart, too, if any; it follows their text.
    """
    results = _record(name)["results"]
    lengths = list(dict.fromkeys(row["num_bits"] for row in results))
    key = lambda row: f"{row[text]}, {row[count]}" if count else row[text]
    found = {(key(row), row["num_bits"]): row for row in results}
    heads = [f"{length} bits{behind}" for behind in scores.values() for length in lengths]
    return _table(
        [text, *heads],
        [
            [called]
            + [f"{found[row, length][score]:.2f}" for score in scores for length in lengths]
            for row, called in rows.items()
        ],
    )


def rotation_table(name: str = "rotation") -> str:
    """Scores in noises that are unseen in turn, an SNR and a system a line."""
    record = _record(name)
    results, names = record["results"], row_names(record)
    measures = {"sdr": "SDR", "si_sdr": "SI-SDR", "stoi": "STOI", "pesq": "PESQ"}
    measures = {key: head for key, head in measures.items() if key in results[0]}
    return _table(
        ["method", "SNR", "bits", *measures.values(), "noises below the mixture"],
        [
            [names[row["method"]], f"{row['snr_db']:g} dB", str(row["num_bits"] or "")]
            + [f"{row[measure]:.2f}" for measure in measures]
            + [f"{len(row['below_mixture'])} of {row['noises']}"]
            for row in results
        ],
    )


def rotation_summary() -> str:
    """SDR in noises that are unseen in turn, a system a line."""
    record = _record("rotation")
    results, names = record["results"], row_names(record)
    snrs = list(dict.fromkeys(row["snr_db"] for row in results))
    found = {(*_system(row), row["snr_db"]): row["sdr"] for row in results}
    return _table(
        ["method", "bits", *(f"mixtures at {snr:g} dB" for snr in snrs)],
        [
            [names[method], str(num_bits or "")]
            + [f"{found[method, num_bits, snr]:.2f}" for snr in snrs]
            for method, num_bits in dict.fromkeys(_system(row) for row in results)
        ],
    )


def rotation_noises() -> str:
    """SDR by unseen noise at the lowest SNR, a noise a line."""
    record = _record("rotation")
    rows, names = record["by_noise"], row_names(record)
    lowest = min(row["snr_db"] for row in rows)
    found = {(row["noise"], *_system(row)): row for row in rows if row["snr_db"] == lowest}
    systems = list(dict.fromkeys(key[1:] for key in found))
    heads = [f"{names[method]} {num_bits or ''}".strip() for method, num_bits in systems]
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


def starts_table() -> str:
    """Objectives of the first and the last bit tried, by where they start and what follows."""
    results = _record("starts")["results"]
    bits = [min(row["bit"] for row in results), max(row["bit"] for row in results)]
    found = {(row["start"], row["bit"]): row for row in results}
    rows = []
    for start, called in _STARTS.items():
        values = [found[start, bit][name] for bit in bits for name in ("best", "after_steps")]
        rows.append([called, *("" if value is None else f"{value:.4f}" for value in values)])
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


_SDR = {"sdr": ""}
TABLES: dict[str, Callable[[], str]] = {
    "bench-search": search_table,
    "bench-train": lambda: benchmark("bench_train"),
    "demo": lambda: scores("demo"),
    "closed-and-open": closed_and_open,
    "general": lambda: closed_and_open("general_"),
    "general-networks": lambda: table1(
        *(f"table1_general{made}" for made in ("_16", "", "_150", "_1024"))
    ),
    "unseen": unseen_table,
    "rotation": rotation_table,
    "rotation-small": lambda: rotation_table("rotation_small"),
    "rotation-summary": rotation_summary,
    "rotation-noises": rotation_noises,
    "table1": lambda: table1("table1"),
    "figure3": figure3_table,
    "claims": claim_table,
    "variations": variation_table,
    "findings-slopes": lambda: variation_table("slopes"),
    "findings-slopes-general": lambda: variation_table("slopes_general"),
    "findings-bits": lambda: findings_table("alternatives", "alternative", _BITS, _SDR),
    "findings-uses": lambda: findings_table("alternatives", "alternative", _USES, _SDR),
    "findings-features": lambda: findings_table("features", "features", _FEATURES, _SDR),
    "findings-dictionaries": lambda: findings_table(
        "dictionaries", "dictionary", _DICTIONARIES, _SDR, "entries"
    ),
    "findings-materials": lambda: findings_table(
        "materials", "material", _MATERIALS, _SDR | {"sdr_in_rooms": ", heard in rooms"}
    ),
    "findings-starts": starts_table,
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

"""Write the tables and pictures of README.md and docs/ again from the records.

    python -m experiments.readme [--check]

Records are in experiments/results. A table stands between `<!-- table NAME -->` and `<!-- end -->`;
everything else is left alone, tables of records that can no longer be made among it. Pictures go to
docs/figures. --check writes nothing and fails if a page or a picture is not in step with its
record.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from blsh_jax import files
from blsh_jax.commands import launch
from blsh_jax.evaluation import NAMES
from experiments import claims, complexity, pictures, published
from experiments import rotation as rotations

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"<!-- table ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
# The first cells of a line, and further ones by the heads of their columns.
Line = tuple[tuple[str, ...], dict[str, str]]
Row = dict[str, Any]
# The lines of the paper's table 1 to those of ours beside them, and what these are.
_BESIDE = {
    "irm": {"irm": "here, ratio mask", "ibm": "here, binary mask"},
    "knn": {"knn": "here"},
    "lsh": {"lsh": "here"},
    "blsh": {"blsh": "here, RBF target", "blsh_cosine": "here, cosine target"},
    "fc": {"fc": "here"},
    "blstm": {"blstm": "here"},
}
# A difference to its sides, in the order of the methods of ``published.TABLE1``.
_DIFFERENCES = (
    *(("blsh", "lsh"), ("knn", "lsh"), ("blsh", "knn")),
    *(("fc", "blsh"), ("blstm", "blsh"), ("blstm", "fc"), ("irm", "blsh")),
)
_MEASURES = {"sdr": "SDR", "sir": "SIR", "sar": "SAR", "si_sdr": "SI-SDR"}
_PAPER_NAMES = {
    "irm": "oracle",
    "knn": "KNN on spectra",
    "lsh": "LSH",
    "blsh": "BLSH",
    "fc": "fully connected",
    "blstm": "LSTM",
}
_SCORES = ("sdr", "sir", "sar")
_LISTENING = {"sdr": "SDR", "si_sdr": "SI-SDR", "stoi": "STOI", "pesq": "PESQ"}
_ALL = {"sdr": "SDR", "si_sdr": "SI-SDR", "stoi": "STOI", "estoi": "ESTOI", "pesq": "PESQ"}
_ALL |= {f"dnsmos_{name}": f"DNSMOS {name.upper()}" for name in ("sig", "bak", "ovr")}


def scores(name: str) -> str:
    """SDR, SIR, SAR and SI-SDR of one evaluation."""
    rows = _rows(name)
    return _crossed(["method", "bits"], [(system, _scored(row, _MEASURES)) for system, row in rows])


def closed_and_open(prefix: str = "") -> str:
    """SDR on both test sets side by side."""
    return _crossed(
        ["method", "bits"],
        [
            (system, _scored(row, {"sdr": f"{name} set ({row['utterances']} mixtures)"}))
            for name in ("closed", "open")
            for system, row in _rows(prefix + name)
        ],
    )


def table1() -> str:
    """The paper's table 1, ours; costs are those on the closed set."""
    networks = _record("table1")["config"]["networks"]
    lines: list[Line] = []
    costs: list[Line] = []
    for (system, num_bits), row in _rows("table1"):
        if size := networks.get(row["method"]):
            system += f", {size['num_layers']} × {size['num_units']}"
        heads = {key: f"{row['set']} {key.upper()}" for key in ("sdr", "sir", "sar")}
        lines.append(((system, num_bits), _scored(row, heads)))
        if row["set"] == "closed" and row["method"] not in ("noisy", "ibm", "irm"):
            found = {
                "float operations": _count(row["float_operations"]),
                "word operations": _count(row["word_operations"]),
                "MB": f"{row['model_bytes'] / 1e6:.1f}",
            }
            costs.append(((system, num_bits), found))
    return _crossed(["system", "bits"], lines + costs)


def paper_table1() -> str:
    """The paper's table 1 with ours below every line."""
    table, lines = _record("table1"), list[Line]()
    ours = {(row["method"], row["set"]): row for row in table["results"]}
    networks = table["config"]["networks"].items()
    sizes = {method: (size["num_layers"], size["num_units"]) for method, size in networks}
    heads = {(place, m): f"{place} {m.upper()}" for place in ("closed", "open") for m in _SCORES}
    sized = lambda words, size: words + (f", {size[0]} × {size[1]}" if size else "")
    for method, theirs in published.TABLE1.items():
        name = _PAPER_NAMES[method]
        found = {head: f"{theirs[place]._asdict()[m]:.2f}" for (place, m), head in heads.items()}
        lines.append(((name, sized("paper", published.NETWORKS.get(method))), found))
        for other, words in _BESIDE[method].items():
            found = {head: f"{ours[other, place][m]:.2f}" for (place, m), head in heads.items()}
            lines.append(((name, sized(words, sizes.get(other))), found))
    return _crossed(["system", "whose"], lines, num_texts=2)


def paper_differences() -> str:
    """SDR between methods, the paper's and ours, and how far BLSH is on the way to the oracle."""
    rows = _record("table1")["results"]
    columns: dict[str, dict[str, float]] = {}
    for name in ("closed", "open"):
        columns[f"{name}, paper"] = {m: of[name].sdr for m, of in published.TABLE1.items()}
        columns[f"{name}, here"] = {row["method"]: row["sdr"] for row in rows if row["set"] == name}
    lines: list[Line] = [
        (
            (f"{_PAPER_NAMES[more]} − {_PAPER_NAMES[less]}",),
            {head: f"{round(sdr[more] - sdr[less], 2) + 0:+.2f}" for head, sdr in columns.items()},
        )
        for more, less in _DIFFERENCES
    ]
    parts = {head: f"{100 * sdr['blsh'] / sdr['irm']:.0f} %" for head, sdr in columns.items()}
    return _crossed(["SDR in dB"], [*lines, (("BLSH, part of the oracle's",), parts)])


def page_examples() -> str:
    """SDR of the codes that the authors' page lets hear, theirs of one mixture and ours."""
    lines: list[Line] = []
    for row in _record("audio_examples")["results"]:
        method = row["method"]
        name = f"{method.upper()}, {row['num_bits']} bits"
        cells = {"page, one mixture": f"{published.AUDIO_EXAMPLES[method]:.2f}"}
        cells[f"here, {row['set']} set"] = f"{row['sdr']:.2f}"
        lines.append(((name,), cells))
    return _crossed(["system"], lines)


def complexity_table() -> str:
    """What a frame costs and what it brings, ours and the paper's."""
    timed = {
        (row["whose"], row["system"], row["num_bits"]): row
        for row in _record("complexity")["results"]
    }
    lines: list[Line] = []
    for whose, compared in complexity.systems().items():
        for system in compared:
            costs, gain = system.costs, system.gain
            times = timed[whose, system.name, system.num_bits]
            operations = costs.float_operations + costs.word_operations
            found = {
                "float operations": _count(costs.float_operations),
                "word operations": _count(costs.word_operations),
                "MB read": f"{costs.read_bytes / 1e6:.3g}",
                "arithmetic, µJ": f"{costs.arithmetic:.3g}",
                "and SRAM, µJ": _digits(costs.energy(complexity.SRAM)),
                "and DRAM, µJ": _digits(costs.energy(complexity.DRAM)),
                "core µs alone": _digits(times["alone_us"]),
                "core µs among 100": _digits(times["block_us"]),
                **{f"{name} SDR": f"{sdr:.2f}" for name, sdr in system.sdr.items()},
                "dB per million operations": f"{1e6 * gain / operations:.3g}",
                "dB per µJ of arithmetic": f"{gain / costs.arithmetic:.3g}",
            }
            lines.append(((whose, system.name, str(system.num_bits or "")), found))
    return _crossed(["whose", "system", "bits"], lines, num_texts=2)


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


def figure3() -> str:
    """The points of figure 3."""
    lines: list[Line] = []
    for row in _record("figure3")["results"]:
        curve = f"{row['method'].upper()}, {100 * row['dictionary_fraction']:g} %"
        point = f"{row['sdr']:.2f} ± {row['sdr_std']:.2f}"
        lines.append(((row["set"], str(row["num_bits"])), {curve: point}))
    return _crossed(["set", "bits"], lines)


def variations(name: str = "variations") -> str:
    """SDR with one thing changed at a time."""
    lines: list[Line] = []
    for row in sorted(_record(name)["results"], key=lambda row: row["set"]):
        changed = "nothing" if row["suspect"] == "none" else f"{row['suspect']}: {row['value']}"
        head = f"{row['set']}, {row['num_bits']}"
        method = row["method"].upper().partition("_")[0]
        lines.append(((changed, method), _scored(row, {"sdr": head})))
    return _crossed(["changed", "system"], lines, num_texts=2)


def authors() -> str:
    """What the claims are about under the authors' training, a trial a line."""
    bits = {1: (25, 150), 4: (150,), 5: (25,)}
    lines: list[Line] = [
        ((row["trial"],), {f"({row['claim']}) {row['set']}, {row['num_bits']}": _gain(row)})
        for row in _record("authors")["gains"]
        if row["part"] == 1 and row["num_bits"] in bits.get(row["claim"], ())
        if row["set"] in ("closed", "open")
    ]
    return _crossed(["trial"], lines)


def authors_noises() -> str:
    """The same on every set, and with 1 % of the frames, of the two targets."""
    lines: list[Line] = [
        ((row["set"], row["trial"]), {f"({row['claim']}) {row['num_bits']}": _gain(row)})
        for row in _record("authors")["gains"]
        if row["trial"] in ("cosine", "RBF") and row["num_bits"] in (25, 150) and row["claim"] != 0
        if row["part"] == (0.1 if row["claim"] == 2 else 1)
    ]
    return _crossed(["set", "trial"], lines, num_texts=2)


def extensions() -> str:
    """What the paper's extensions gain over its BLSH at every length."""
    names = {trial for trial, _ in pictures.EXTENSIONS}
    lines: list[Line] = [
        ((row["trial"], row["set"]), {str(row["num_bits"]): _gain(row)})
        for row in _record("authors")["gains"]
        if row["trial"] in names and (row["claim"], row["part"]) == (0, 1)
    ]
    return _crossed(["trial", "set"], lines, num_texts=2)


def journal() -> str:
    """Additions of the journal version, by all measures."""
    record = _record("authors")
    sdr = {
        (row["trial"], row["set"], row["num_bits"]): row["sdr"]
        for row in record["results"]
        if (row["method"], row["part"]) == ("blsh", 1)
    }
    lines: list[Line] = []
    for row in record["listening"]:
        place = row["trial"], row["set"], row["num_bits"]
        lines.append(((*place[:2], str(place[2])), _scored(row | {"sdr": sdr[place]}, _ALL)))
    return _crossed(["trial", "set", "bits"], lines, num_texts=2)


def rotation(rows: Sequence[Row] | None = None) -> str:
    """Scores in noises that are unseen in turn, an SNR and a system a line."""
    lines: list[Line] = []
    for row in _record("rotation")["results"] if rows is None else rows:
        below = {"noises below the mixture": f"{len(row['below_mixture'])} of {row['noises']}"}
        line = (NAMES[row["method"]], f"{row['snr_db']:g} dB", str(row["num_bits"] or ""))
        lines.append((line, _scored(row, _ALL) | below))
    return _crossed(["method", "SNR", "bits"], lines)


def peers() -> str:
    """The same of networks of others, and of models in the noises that those were scored in."""
    theirs, ours = (_record(name)["by_noise"] for name in ("peers", "rotation"))
    noises = {row["noise"] for row in theirs}
    same = [row for row in ours if row["noise"] in noises and row["method"].startswith("blsh")]
    return rotation(sorted(rotations.means(theirs + same), key=lambda row: row["snr_db"]))


def rotation_gains() -> str:
    """What ferns gain over speech presence in unseen noises, with standard errors over noises."""
    lines: list[Line] = []
    for (method, _), row in _rows("rotation"):
        if "above_presence" not in row:
            continue
        places = lambda name: 2 if "sdr" in name else 3
        found = {
            head: f"{row['above_presence'][name]:+.{places(name)}f} ± "
            f"{row['standard_error'][name]:.{places(name)}f}"
            for name, head in _ALL.items()
            if name in row
        }
        found["lowest, SDR"] = f"{row['lowest']['sdr']:+.2f} ({row['lowest']['noise']})"
        lines.append(((f"{row['snr_db']:g} dB", method), found))
    return _crossed(["SNR", "method"], lines, num_texts=2)


def adaptation() -> str:
    """Scores before and after fine-tuning on a noise, in it and in others."""
    rows = _record("adaptation")["results"]
    before = {(r["where"], r["snr_db"]): r for r in rows if r["method"] == "blsh"}
    places, lines = {"own": "the noise itself", "others": "other noises"}, list[Line]()
    for row in (row for row in rows if row["method"] == "blsh_adapted"):
        found = {}
        for name, head in _ALL.items():
            if name not in row:
                continue
            digits = 2 if "sdr" in name else 3
            gain, error = row[f"{name}_gain"], row[f"{name}_gain_error"]
            found[head] = (
                f"{before[row['where'], row['snr_db']][name]:.{digits}f} "
                f"{gain:+.{digits}f} ± {error:.{digits}f}"
            )
        lines.append(((places[row["where"]], f"{row['snr_db']:g} dB"), found))
    return _crossed(["in", "SNR"], lines, num_texts=2)


def at_a_glance() -> str:
    """What a user gains, at two SNRs, in the noises in which all that stands here was scored."""
    of = {name: _record(name)["by_noise"] for name in ("rotation", "rotation_small", "peers")}
    noises = {row["noise"] for row in of["rotation_small"]} & {row["noise"] for row in of["peers"]}
    means = {
        (record, row["method"], row["snr_db"]): row
        for record, rows in of.items()
        for row in rotations.means([row for row in rows if row["noise"] in noises])
    }
    timed = {row["name"]: row for row in _record("bench_denoise")["results"]}
    lines: list[Line] = []
    for snr in (0.0, 10.0):
        for record, method, name, model, side in (
            ("rotation", "noisy", "noisy", "", ""),
            ("peers", "rnnoise", "RNNoise", "default, rnnoise", "reference"),
            ("peers", "dtln", "DTLN", "default, dtln", "reference"),
            ("rotation_small", "blsh", "BLSH, `small`", "small, rnnoise", "ours"),
            ("rotation", "blsh", "BLSH, `default`", "default, rnnoise", "ours"),
        ):
            cells = _scored(means[record, method, snr], _LISTENING)
            if model:
                speed = timed[f"denoise by {model}"][side]
                cells |= {"seconds a minute": f"{60 / speed:.1f}"}
            lines.append(((f"{snr:g} dB", name), cells))
    return _crossed(["SNR", "method"], lines, num_texts=2)


def rotation_small() -> str:
    """The smaller pretrained model's kind, and ferns without a search, beside the larger's."""
    small, large = (_record(name)["by_noise"] for name in ("rotation_small", "rotation"))
    there = {(row["noise"], row["snr_db"]) for row in small}
    same = [
        row
        for row in large
        if (row["noise"], row["snr_db"]) in there and row["method"].startswith("blsh")
    ]
    return rotation(sorted(rotations.means(small + same), key=lambda row: row["snr_db"]))


def rotation_noises() -> str:
    """SDR by unseen noise at the lowest SNR, a noise a line."""
    rows = _rows("rotation", "by_noise")
    lowest = min(row["snr_db"] for _, row in rows)
    return _crossed(
        ["unseen noise"],
        [
            ((row["noise"],), _scored(row, {"sdr": " ".join(system).strip()}))
            for system, row in rows
            if row["snr_db"] == lowest
        ],
    )


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


def bench_recipe() -> str:
    """The whole recipe, a stage a line, at each scale."""
    lines: list[Line] = []
    for row in _record("bench_recipe")["results"]:
        if "core_seconds" in row:
            cells = {f"{row['size']}, core seconds": _digits(row["core_seconds"])}
        else:
            cells = {f"{row['size']}, core seconds": f"{_digits(row['ours'])} {row['unit']}"}
        lines.append(((row["name"],), cells))
    return _crossed(["stage"], lines)


def bench_search() -> str:
    """The search against FAISS and a naive top_k, a line per size."""
    lines: list[Line] = []
    for row in _record("bench_search")["results"]:
        path = row["name"].removeprefix("hamming_top_k, ").partition(" : ")[0]
        found = {}
        if "faiss" in row["name"]:
            found = {
                "FAISS": f"{row['reference_per_core']:.2f}",
                path: f"{row['ours_per_core']:.2f}",
                f"{path} / FAISS": f"{row['core_ratio']:.1f}",
                f"{path} / FAISS, clock": f"{row['ratio']:.2f}",
            }
        elif "lax.top_k" in row["name"]:
            found = {f"{path} / `lax.top_k`, clock": _digits(row["ratio"])}
        if found:
            lines.append(((row["size"],), found))
    return _crossed(["size"], lines)


def fuzz() -> str:
    """What came of damaged files."""
    rows = _record("fuzz")["results"]
    heads = {"most_seconds": "longest, s", "most_mb": "most memory, MB"}
    cells = [[row["kind"], *(f"{row[name]:,}" for name in list(row)[1:])] for row in rows]
    return _table([heads.get(name, name) for name in rows[0]], cells, num_texts=1)


TABLES: dict[str, Callable[[], str]] = {
    "bench-denoise": lambda: benchmark("bench_denoise"),
    "bench-recipe": bench_recipe,
    "bench-search": bench_search,
    "bench-train": lambda: benchmark("bench_train"),
    "demo": lambda: scores("demo"),
    "fuzz": fuzz,
    "closed-and-open": closed_and_open,
    "general": lambda: closed_and_open("general_"),
    "rotation": rotation,
    "peers": peers,
    "rotation-small": rotation_small,
    "at-a-glance": at_a_glance,
    "rotation-gains": rotation_gains,
    "rotation-noises": rotation_noises,
    "adaptation": adaptation,
    "table1": table1,
    "paper-table1": paper_table1,
    "paper-differences": paper_differences,
    "page-examples": page_examples,
    "complexity": complexity_table,
    "figure3": figure3,
    "claims": claim_table,
    "variations": variations,
    "authors": authors,
    "authors-noises": authors_noises,
    "extensions": extensions,
    "journal": journal,
    "findings-slopes": lambda: variations("slopes"),
    "findings-slopes-general": lambda: variations("slopes_general"),
}


def _figure2(record: dict[str, Any]) -> Figure:
    with np.load(RESULTS / "figure2.npz", allow_pickle=False) as file:
        return pictures.figure2(record, dict(file))


# Pictures by name, from the record that each is drawn from.
PICTURES: dict[str, tuple[str, Callable[[dict[str, Any]], Figure]]] = {
    "figure2": ("figure2", _figure2),
    "figure3": ("figure3", pictures.figure3),
    "extensions": ("authors", pictures.extensions),
    "training_curves": ("bench_train", pictures.training_curves),
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
    return [
        name
        for name, (record, _) in PICTURES.items()
        if not pictures.is_of(pictures.FOLDER / f"{name}.png", _record(record))
    ]


def row_names(record: dict[str, Any]) -> dict[str, str]:
    """What the methods of a record are, by its configuration."""
    config = record["config"]
    settings = config.get("model") or config.get("train") or config
    names = NAMES | {"rnnoise_lead_in": NAMES["rnnoise_pre_roll"]}  # of older records
    features = settings.get("separation", settings)["features"]
    if features["kind"] != "magnitude" or features.get("levels"):
        names["knn"] = "KNN on the same features"
    return names


def _rows(name: str, part: str = "results") -> list[tuple[tuple[str, str], Row]]:
    """Rows of a record, each with what its system is called and its bits."""
    record = _record(name)
    names = row_names(record)
    return [((names[row["method"]], str(row["num_bits"] or "")), row) for row in record[part]]


def _scored(row: Row, heads: Mapping[str, str]) -> dict[str, str]:
    """Scores of a row that are there, by the heads of their columns."""
    places = lambda name: 3 if name in ("stoi", "estoi") else 2
    text = lambda name: "∞" if row[name] is None else f"{row[name]:.{places(name)}f}"
    return {head: text(name) for name, head in heads.items() if name in row}


def _gain(row: Row) -> str:
    """A difference with its standard error over mixtures, and that over seeds."""
    seeds = row["se_seeds"]
    errors = f"{row['se_mixtures']:.2f}" + ("" if seeds is None else f" / {seeds:.2f}")
    return f"{row['gain']:+.2f} ± {errors}"


def _verdict(found: claims.Verdict) -> str:
    word = "**true**" if found.holds else "**false**"
    return f"{word} with {found.training}" if found.training else word


def _crossed(heads: Sequence[str], lines: Iterable[Line], num_texts: int = 1) -> str:
    """A table of lines, those that begin alike joined, with columns in the order of their names."""
    joined: dict[tuple[str, ...], dict[str, str]] = {}
    for first, cells in lines:
        joined.setdefault(first, {}).update(cells)
    columns = list(dict.fromkeys(head for cells in joined.values() for head in cells))
    rows = [[*first, *(cells.get(head, "") for head in columns)] for first, cells in joined.items()]
    return _table([*heads, *columns], rows, num_texts)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], num_texts: int) -> str:
    """A Markdown table whose first ``num_texts`` columns are texts, the others figures."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    marks = "|" + "---|" * num_texts + "--:|" * (len(heads) - num_texts)
    return "\n".join([line(heads), marks, *map(line, rows)])


def _digits(value: float | None) -> str:
    """Three digits, or whole numbers above; nothing where there is no reference."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _count(operations: int) -> str:
    """A number of operations, readable: 154 k, 51 M."""
    if operations == 0:
        return "0"
    return f"{operations / 1e6:.3g} M" if operations >= 1e6 else f"{operations / 1e3:.3g} k"


def _record(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _define_flags() -> None:
    flags.DEFINE_bool("check", False, "Fail if a page or picture is not in step with its records.")


def main() -> None:
    """Write the pages and pictures, or check them."""
    pages, drawings = stale(), stale_pictures()
    if flags.FLAGS.check and (pages or drawings):
        names = [page.name for page in pages] + drawings
        raise ValueError(f"not in step with their records: {', '.join(names)}")
    for name in drawings:
        record, draw = _record(PICTURES[name][0]), PICTURES[name][1]
        pictures.save(draw(record), record, pictures.FOLDER / f"{name}.png")
        print(f"drew {name}.png")
    for page in pages:
        files.write(page, render(page.read_text()).encode())
        print(f"wrote {page.name}")


if __name__ == "__main__":
    launch.run(_define_flags, main)

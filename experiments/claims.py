"""The paper's claims, judged by our records: true or false as they come out."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments import published

Records = Mapping[str, dict[str, Any]]

_MARGIN_DB = 0.7  # claim 5: BLSH-25 "within" this of LSH-125
_NETWORKS = ("fc", "blstm", "blsh")  # in the order of claim 6
_JUDGED_ON = "open"  # figure 3, as the paper draws it
_JUDGED = f" (judged on the {_JUDGED_ON} set)"
_OUR_WAY = "the paper's way, trained by us"  # the model of the records closed and open


class Verdict(NamedTuple):
    """A claim and what became of it.

    Attributes:
        claim: what the paper says.
        holds: whether it is so here.
        figures: what it rests on.
        record: file in experiments/results.
        training: how BLSH was trained, where the verdict hangs on it.
    """

    claim: str
    holds: bool
    figures: str
    record: str
    training: str = ""


def judge(records: Records) -> list[Verdict]:
    """All six claims.

    Args:
        records: ``table1``, ``figure3``, ``figure3_one_draw`` and ``audio_examples`` by name, and
            ``closed`` and ``open``, the evaluations of one model of the paper's way, trained by us.
    """
    return [
        _above_at_every_length(records["figure3"], records["closed"], records["open"]),
        _small_dictionary(records["figure3"]),
        _narrower_band(records["figure3"], records["figure3_one_draw"]),
        _above_spectra(records["table1"], records["open"]),
        _short_codes(records["audio_examples"]),
        _networks(records["table1"]),
    ]


def _above_at_every_length(
    record: dict[str, Any], closed: dict[str, Any], opened: dict[str, Any]
) -> Verdict:
    claim = "(1) BLSH is above LSH at every length, with one dictionary"
    fits = [record["config"]["fit"], *(r["config"]["model"]["fit"] for r in (closed, opened))]
    training = " and ".join(dict.fromkeys(map(_training, fits)))
    holds, texts = True, []
    for name, fraction in itertools.product(_sets(record), _fractions(record)):
        blsh, lsh = (_curve(record, name, method, fraction) for method in ("blsh", "lsh"))
        gains = {n: blsh[n][0] - lsh[n][0] for n in blsh}
        lowest = min(gains, key=gains.__getitem__)
        holds = holds and gains[lowest] > 0
        text = (
            f"{name}, {_percent(fraction)}: {gains[min(gains)]:+.2f} dB at L = {min(gains)}, "
            f"least {gains[lowest]:+.2f} at {lowest}"
        )
        below = [n for n, gain in gains.items() if gain <= 0]
        texts.append(text + (f", below at {_list(below)}" if below else ""))
    for name, scored in (("closed", closed), ("open", opened)):
        sdr = {(row["method"], row["num_bits"]): row["sdr"] for row in scored["results"]}
        gains = {n: sdr["blsh", n] - sdr["lsh", n] for method, n in sdr if method == "blsh"}
        holds = holds and min(gains.values()) > 0
        figures = ", ".join(f"{gain:+.2f} dB at {n}" for n, gain in gains.items())
        texts.append(f"{_OUR_WAY}, {name}: {figures}")
    files = "figure3.json, closed.json, open.json"
    return Verdict(claim, holds, "; ".join(texts), files, training)


def _small_dictionary(record: dict[str, Any]) -> Verdict:
    large, small = max(_fractions(record)), min(_fractions(record))
    claim = f"(2) BLSH with {_percent(small)} of the frames is above LSH with {_percent(large)}"
    texts, below = [], {}
    for name in _sets(record):
        blsh, lsh = (
            _curve(record, name, method, part) for method, part in (("blsh", small), ("lsh", large))
        )
        below[name] = [n for n in blsh if blsh[n][0] <= lsh[n][0]]
        gains = ", ".join(f"{blsh[n][0] - lsh[n][0]:+.2f} dB at {n}" for n in blsh)
        texts.append(f"{name}: {gains}, below at {_list(below[name])}")
    return Verdict(claim, not below[_JUDGED_ON], "; ".join(texts) + _JUDGED, "figure3.json")


def _narrower_band(record: dict[str, Any], one_draw: dict[str, Any]) -> Verdict:
    claim = "(3) over random dictionaries, the band of BLSH is narrower than LSH's"
    holds, texts = True, []
    for name, fraction in itertools.product(_sets(record), _fractions(record)):
        blsh, lsh = (_curve(record, name, method, fraction) for method in ("blsh", "lsh"))
        wider = [n for n in blsh if blsh[n][1] >= lsh[n][1]]
        holds = holds and not (wider and name == _JUDGED_ON)
        kept = _curve(one_draw, name, "lsh", fraction)
        spread = [sum(p[1] for p in curve.values()) / len(curve) for curve in (blsh, lsh, kept)]
        text = (
            f"{name}, {_percent(fraction)}: mean standard deviation {spread[0]:.3f} dB against "
            f"{spread[1]:.3f} (LSH with one draw of projections: {spread[2]:.3f})"
        )
        texts.append(text + (f", wider at {_list(wider)}" if wider else ""))
    files = "figure3.json, figure3_one_draw.json"
    return Verdict(claim, holds, "; ".join(texts) + _JUDGED, files)


def _above_spectra(record: dict[str, Any], opened: dict[str, Any]) -> Verdict:
    length = record["config"]["length"]
    theirs = [published.TABLE1[method]["open"].sdr for method in ("blsh", "knn")]
    claim = (
        f"(4) BLSH at {length} bits is above KNN on raw spectra on the open set "
        f"(paper: {theirs[0]:.2f} against {theirs[1]:.2f} dB)"
    )
    rows = {(r["set"], r["method"]): r["sdr"] for r in record["results"]}
    scored = {(r["method"], r["num_bits"]): r["sdr"] for r in opened["results"]}
    pairs = {
        _OUR_WAY: (scored["blsh", length], scored["knn", None]),
        "table 1": (rows["open", "blsh"], rows["open", "knn"]),
    }
    text = "; ".join(f"{name}: {b:.2f} against {k:.2f} dB" for name, (b, k) in pairs.items())
    blsh, knn = pairs[_OUR_WAY]
    return Verdict(claim, blsh > knn, text, "open.json, table1.json")


def _short_codes(record: dict[str, Any]) -> Verdict:
    rows = {(r["set"], r["method"]): r for r in record["results"]}
    lsh, blsh = rows["closed", "lsh"], rows["closed", "blsh"]
    theirs = published.AUDIO_EXAMPLES
    claim = (
        f"(5) BLSH at {blsh['num_bits']} bits is within {_MARGIN_DB} dB of LSH at "
        f"{lsh['num_bits']} bits (page: {theirs['blsh']:.2f} against {theirs['lsh']:.2f} dB)"
    )
    text = "; ".join(
        f"{name}: {rows[name, 'blsh']['sdr']:.2f} against {rows[name, 'lsh']['sdr']:.2f} dB"
        for name in dict.fromkeys(name for name, _ in rows)
    )
    holds = blsh["sdr"] >= lsh["sdr"] - _MARGIN_DB
    return Verdict(claim, holds, text + " (judged on the closed set)", "audio_examples.json")


def _networks(record: dict[str, Any]) -> Verdict:
    rows = {(r["set"], r["method"]): r["sdr"] for r in record["results"]}
    sets = list(dict.fromkeys(name for name, _ in rows))
    holds = all(rows[name, net] > rows[name, "blsh"] for name in sets for net in _NETWORKS[:2])
    text = "; ".join(
        f"{name}: fully connected {rows[name, 'fc']:.2f}, BLSTM {rows[name, 'blstm']:.2f}, "
        f"BLSH {rows[name, 'blsh']:.2f} dB"
        for name in sets
    )
    theirs = "; ".join(
        f"{name}: " + ", ".join(f"{published.TABLE1[m][name].sdr:.2f}" for m in _NETWORKS)
        for name in sets
    )
    claim = f"(6) the networks are above BLSH (paper, {theirs} dB)"
    return Verdict(claim, holds, text, "table1.json")


def _fractions(record: dict[str, Any]) -> list[float]:
    return sorted({row["dictionary_fraction"] for row in record["results"]}, reverse=True)


def _sets(record: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["set"] for row in record["results"]))


def _curve(
    record: dict[str, Any], name: str, method: str, fraction: float
) -> dict[int, tuple[float, float]]:
    """Length to mean and standard deviation of SDR on a set."""
    return {
        row["num_bits"]: (row["sdr"], row["sdr_std"])
        for row in record["results"]
        if (row["set"], row["method"], row["dictionary_fraction"]) == (name, method, fraction)
    }


def _training(fit: dict[str, Any]) -> str:
    """Mode and target that bits were learned with."""
    target = f"RBF target, σ² = {fit['sigma2']:g}" if fit["target"] == "rbf" else "cosine target"
    return f"{fit['mode']} mode, {target}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values)) or "none"

"""Verdicts on claims, from made-up records whose verdicts are known."""

import copy

import pytest

from experiments import claims

FIT = {"mode": "fast", "target": "rbf", "sigma2": 0.3}


def figure3_record(lsh_std=0.4):
    """BLSH 2 dB above LSH at both lengths, and 1 dB per tenfold dictionary."""
    rows = [
        {
            "set": name,
            "method": method,
            "dictionary_fraction": fraction,
            "num_bits": length,
            "sdr": level + (fraction == 0.1) + length / 25,
            "sdr_std": std,
        }
        for name in ("closed", "open")
        for method, level, std in (("lsh", 5.0, lsh_std), ("blsh", 7.0, 0.1))
        for fraction in (0.1, 0.01)
        for length in (5, 25)
    ]
    return {"results": rows, "config": {"fit": FIT}}


@pytest.fixture
def records():
    """Records under which every claim is true."""
    table = [
        {"set": name, "method": method, "sdr": sdr}
        for name in ("closed", "open")
        for method, sdr in (("knn", 6.0), ("blsh", 7.0), ("fc", 8.0), ("blstm", 9.0))
    ]
    audio = [
        {"set": name, "method": method, "num_bits": bits, "sdr": sdr}
        for name in ("closed", "open")
        for method, bits, sdr in (("lsh", 125, 8.95), ("blsh", 25, 8.33))
    ]
    scored = [
        {"method": method, "num_bits": bits, "sdr": sdr}
        for method, bits, sdr in (
            ("lsh", 25, 5.0), ("lsh", 150, 6.5), ("blsh", 25, 6.0), ("blsh", 150, 7.0),
            ("knn", None, 6.0),
        )
    ]  # fmt: skip
    evaluated = {"results": scored, "config": {"model": {"fit": FIT}}}
    return {
        "closed": evaluated,
        "open": copy.deepcopy(evaluated),
        "figure3": figure3_record(),
        "figure3_one_draw": figure3_record(0.2),
        "table1": {"results": table, "config": {"length": 150}},
        "audio_examples": {"results": audio},
    }


def test_all_true(records):
    found = claims.judge(records)
    assert all(verdict.holds for verdict in found)
    figures = [verdict.figures for verdict in found]
    assert "closed, 10 %: +2.00 dB at L = 5" in figures[0]
    assert "open: +1.00 dB at 5, +1.00 dB at 25, below at none (judged on" in figures[1]
    assert "0.100 dB against 0.400 (LSH with one draw of projections: 0.200)" in figures[2]
    assert "the paper's way, trained by us, open: +1.00 dB at 25, +0.50 dB at 150" in figures[0]
    assert figures[3].startswith("the paper's way, trained by us: 7.00 against 6.00 dB; table 1")
    assert "closed: 8.33 against 8.95 dB" in figures[4]
    assert "open: fully connected 8.00, BLSTM 9.00, BLSH 7.00 dB" in figures[5]
    assert "(paper: 10.04 against 9.66 dB)" in found[3].claim
    assert "(page: 8.33 against 8.95 dB)" in found[4].claim
    assert "(paper, closed: 12.17, 13.37, 10.20; open: 12.04, 12.65, 10.04 dB)" in found[5].claim


def test_a_verdict_says_for_which_training_it_holds(records):
    assert claims.judge(records)[0].training == "fast mode, RBF target, σ² = 0.3"
    records["open"]["config"]["model"]["fit"] = {"mode": "published", "target": "cosine"}
    found = claims.judge(records)[0].training
    assert found == "fast mode, RBF target, σ² = 0.3 and published mode, cosine target"


@pytest.mark.parametrize(
    ("claim", "record", "row", "change", "said"),
    [
        (0, "figure3", ("closed", "lsh", 0.01, 25), {"sdr": 8.5}, "least -0.50 at 25, below at 25"),
        (1, "figure3", ("open", "blsh", 0.01, 5), {"sdr": 6.0}, "below at 5"),
        (2, "figure3", ("open", "lsh", 0.1, 5), {"sdr_std": 0.05}, "wider at 5"),
        (3, "open", (None, "knn", None, None), {"sdr": 7.5}, "7.00 against 7.50"),
        (0, "closed", (None, "lsh", None, 25), {"sdr": 6.7}, "closed: -0.70 dB at 25"),
        (4, "audio_examples", ("closed", "blsh", None, 25), {"sdr": 8.2}, "closed: 8.20"),
        (5, "table1", ("closed", "fc", None, None), {"sdr": 6.9}, "fully connected 6.90"),
    ],
)
def test_one_point_makes_one_claim_false(records, claim, record, row, change, said):
    names = ("set", "method", "dictionary_fraction", "num_bits")
    for point in records[record]["results"]:
        if tuple(point.get(name) for name in names) == row:
            point.update(change)
    found = claims.judge(records)
    assert [v.holds for v in found] == [i != claim for i in range(6)]
    assert said in found[claim].figures


def test_figure_3_is_judged_on_the_open_set(records):
    for point in records["figure3"]["results"]:
        if (point["set"], point["method"]) == ("closed", "blsh"):
            point.update(sdr=point["sdr"] - 1.5, sdr_std=0.5)
    found = claims.judge(records)
    assert all(verdict.holds for verdict in found)
    assert "closed: -0.50 dB at 5, -0.50 dB at 25, below at 5, 25" in found[1].figures
    assert "closed, 10 %: mean standard deviation 0.500 dB" in found[2].figures

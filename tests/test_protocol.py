"""Protocols on small trees written in the layouts of the corpora."""

import json

import launching
import numpy as np
import pytest
import soundfile

from blsh_jax import config
from experiments import protocol

CONFIG = config.TrainConfig()
RATE = 16_000
FEW = ("--num_bits=8", "--length=8", "--block_size=200", "--fast_steps=5", "--fast_candidates=4")
FEW += ("--systems=noisy,ibm", "--max_mixtures=4")


def write(path, seconds, rng, scale=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = scale * rng.standard_normal(int(seconds * RATE))
    soundfile.write(path, signal, RATE, format="NIST" if path.suffix == ".WAV" else None)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """TIMIT with ten speakers of four sentences, Duan's noises, two DEMAND environments."""
    root, rng = tmp_path_factory.mktemp("trees"), np.random.default_rng(0)
    for number in range(10):
        sex = "FM"[number % 2]
        half = ("TRAIN", "TEST")[number // 5]
        for sentence in ("SA1", "SA2", "SI100", "SX7"):
            name = f"{sex}AB{'CDEFGHIJKL'[number]}0"
            write(
                root / "timit" / half / f"DR{1 + number % 8}" / name / f"{sentence}.WAV", 0.4, rng
            )
    for name in ("birds", "casino", "ocean"):
        write(root / "duan" / f"{name}.wav", 1.0, rng)
    for name in ("DKITCHEN", "NPARK"):
        for channel in (1, 2, 16):
            write(root / "demand" / name / f"ch{channel:02}.wav", 1.0, rng)
    return root


def test_the_paper_split(trees):
    made = protocol.paper(
        trees / "timit", trees / "duan", trees / "demand", CONFIG, 1000, num_train=4, num_test=6
    )
    speakers = lambda mixtures: {r.speaker for r in mixtures.speech.recordings}
    train, closed, opened = (speakers(m) for m in (made.train, *made.tests.values()))
    assert train == closed
    assert len(train) == 4
    assert len(opened) == 6
    assert not train & opened
    for group in (train, opened):
        assert sum(name.startswith("F") for name in group) == len(group) / 2
    assert len(made.train) == 4 * 2 * 3
    assert len(made.tests["closed"]) == 4 * 2 * 3
    assert len(made.tests["open"]) == 6 * 4 * 2
    keys = lambda mixtures: {r.key for r in mixtures.speech.recordings}
    assert not keys(made.train) & keys(made.tests["closed"])
    assert {m.snr_db for m in made.train} == {0.0}
    assert made.sources["noise"]["layout"] == "duan"
    assert made.sources["open_noise"] == {
        "layout": "demand", "licence": "CC BY-SA 3.0", "recordings": 2, "speakers": 0,
    }  # fmt: skip


def test_the_split_by_parts(trees):
    made = protocol.parts(trees / "timit", trees / "duan", None, None, CONFIG, 7)
    assert list(made.tests) == ["closed"]
    assert len(made.tests["closed"]) == 7
    longest = int(0.4 * RATE)
    assert set(made.train.lengths) == {longest - round(0.2 * longest)}
    assert set(made.tests["closed"].lengths) == {round(0.2 * longest)}
    both = protocol.parts(
        trees / "timit", trees / "duan", trees / "timit", trees / "demand", CONFIG, 7
    )
    assert set(both.tests["open"].lengths) == {longest}
    described = json.loads(json.dumps(protocol.describe(both)))
    assert described["sets"]["train"]["mixtures"] == 40 * 3
    assert described["sources"]["speech"]["speakers"] == 10


def test_the_command_runs_the_paper_protocol(trees, tmp_path):
    def table1(*more):
        return launching.run(
            "table1", "--protocol=paper", f"--speech={trees}/timit", f"--noise={trees}/duan",
            "--num_test=2", "--num_train=4", f"--output={tmp_path}/table1.json", *FEW, *more,
        )  # fmt: skip

    assert table1(f"--open_noise={trees}/demand") is None
    record = json.loads((tmp_path / "table1.json").read_text())
    assert [(row["set"], row["method"]) for row in record["results"]] == [
        ("closed", "noisy"), ("open", "noisy"), ("closed", "ibm"), ("open", "ibm"),
    ]  # fmt: skip
    assert record["config"]["protocol"] == "paper"
    assert record["config"]["sources"]["train"]["speakers"] == 4
    assert "--open_speech" in table1(f"--open_speech={trees}/timit", f"--open_noise={trees}/demand")
    assert "speakers of sex F" in table1(f"--open_noise={trees}/demand", "--num_train=160")


@pytest.mark.parametrize("protocol", ["paper", "parts"])
def test_the_claims_are_tried_by_both_protocols(trees, tmp_path, protocol):
    few = ("--num_bits=6", "--block_size=50", "--max_fit_frames=100", "--max_epochs=20")
    few += ("--dictionary_fraction=0.9", "--max_mixtures=2", "--max_training_mixtures=12")
    of_protocol = {
        "paper": ("--protocol=paper", "--num_train=4", "--num_test=2"),
        "parts": (f"--open_speech={trees}/timit", f"--lively_noise={trees}/duan"),
    }
    said = launching.run(
        "authors", f"--speech={trees}/timit", f"--noise={trees}/duan", "--nolistening",
        f"--open_noise={trees}/demand", "--only=cosine: weighted by beta,cosine: other voices",
        f"--output={tmp_path}/authors.json", *few, *of_protocol[protocol],
    )  # fmt: skip
    assert said is None
    record = json.loads((tmp_path / "authors.json").read_text())
    # No other voices were given.
    assert {row["trial"] for row in record["gains"]} == {"cosine: weighted by beta"}
    found = {(row["set"], row["method"], row["num_bits"]) for row in record["results"]}
    codes = {("blsh", 5), ("blsh", 6), ("lsh", 5), ("lsh", 6), ("lsh", 125), ("knn", None)}
    sets = {"closed", "open"} | ({"lively"} if protocol == "parts" else set())
    assert found == {(name, *code) for name in sets for code in codes}
    assert {row["part"] for row in record["results"]} == {1.0, 0.1}
    assert (tmp_path / "authors.png").stat().st_size > 0
    assert set(record["config"]["sets"]) == sets | {"train"}

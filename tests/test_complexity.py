"""Costs by formula, beside networks that are made and a record that was measured."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from blsh_jax.config import NetworkConfig
from blsh_jax.evaluation import networks
from experiments import complexity, readme

RESULTS = Path(__file__).parents[1] / "experiments" / "results"


@pytest.mark.parametrize("kind", ["fc", "blstm"])
def test_a_network_costs_what_a_made_one_has(kind):
    config = NetworkConfig(kind, 2, 5)
    made = networks.init(7, 6, config, jax.random.key(0))
    costs = complexity.network(kind, 2, 5, 7, 6)
    assert costs.float_operations == made.operations
    assert costs.model_bytes == costs.read_bytes == 4 * made.num_parameters


def test_the_costs_of_the_record_follow_from_its_sizes():
    record = json.loads((RESULTS / "table1.json").read_text())
    found = {row["method"]: row for row in record["results"]}
    frames = found["knn"]["float_operations"] // (2 * 513)
    made = {
        "knn": complexity.spectral(513, frames, 513, 10),
        "blsh": complexity.hashing(150, 513, frames, 513, 10),
    }
    for method, size in record["config"]["networks"].items():
        layers, units = size["num_layers"], size["num_units"]
        made[method] = complexity.network(method, layers, units, 513, 513)
    for method, costs in made.items():
        for name in ("float_operations", "word_operations", "model_bytes"):
            assert getattr(costs, name) == found[method][name], (method, name)


def test_a_search_reads_all_codes_and_the_masks_of_its_neighbours():
    costs = complexity.hashing(num_bits=40, num_features=3, num_frames=100, num_bins=33, k=2)
    assert costs.read_bytes == 4 * (40 * 4 + 100 * 2 + 2 * 2)
    assert costs.model_bytes == 4 * (40 * 4 + 100 * 2 + 100 * 2)
    assert complexity.spectral(3, 100, 33, 2).read_bytes == 4 * (100 * 3 + 2 * 2)


def test_what_is_timed_makes_masks_of_every_frame():
    frames = jax.random.uniform(jax.random.key(0), (6, 7))
    made = {
        "codes": complexity.coded(40, 7, 100, 33, 2),
        "spectra": complexity.compared(7, 100, 33, 2),
        "fc": complexity.predicted("fc", 1, 5, 7, 33),
        "blstm": complexity.predicted("blstm", 1, 5, 7, 33),
    }
    for name, masks in made.items():
        found = np.asarray(masks(frames))
        assert found.shape == (6, 33), name
        assert 0 <= found.min() < found.max() <= 1, name


def test_only_what_hears_later_frames_is_not_timed_alone():
    one = lambda kind: complexity._compared(
        kind, None, {}, 0.0, complexity._NETWORK, kind, 1, 5, 7, 33
    )
    rows = complexity.measured([one("fc"), one("blstm")], 1, 7)
    assert [row["alone_us"] is None for row in rows] == [False, True]
    assert all(row["block_us"] > 0 for row in rows)


def test_energy_by_hand():
    costs = complexity.Costs(2_000_000, 1_000_000, 0, 8_000_000)
    assert costs.arithmetic == pytest.approx(4.6 + 0.1)
    assert costs.energy(complexity.SRAM) == pytest.approx(4.7 + 100)
    assert costs.energy(complexity.DRAM) == pytest.approx(4.7 + 1300)


def test_the_table_has_the_papers_sizes():
    theirs = {(row.name, row.num_bits): row.costs for row in complexity.theirs()}
    weights = 513 * 1024 + 2 * 1024**2 + 1024 * 513
    assert theirs["fully connected network, 3 × 1024", None].float_operations == 2 * weights
    assert theirs["BLSH", 150].word_operations == 3 * 225_000 * 5
    lines = readme.complexity_table().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| here"] * 12 + ["| paper"] * 5

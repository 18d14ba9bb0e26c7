import dataclasses
import json

import jax
import numpy as np
import pytest

from blsh_jax.config import FitConfig
from blsh_jax.training import driver
from experiments import bench_train, pictures
from tests.test_driver import make_frames

CONFIG = FitConfig(
    num_bits=2, block_size=20, fast_candidates=4, fast_steps=20, min_epochs=2, max_epochs=3
)


@pytest.mark.slow
def test_benchmark_on_a_tiny_problem(tmp_path):
    """Both modes and a scale; the record makes a picture."""
    frames = make_frames(100)
    curves = bench_train.curves(frames, CONFIG, seed=0)
    rows = bench_train.curve_rows(curves, torch_seconds=0.01)
    rows.append(bench_train.scale_row(frames, CONFIG, "rebuild", seed=0))
    record = {"results": rows, "curves": curves}
    assert len(curves["published"]["objective"]) == 2
    pictures.save(pictures.training_curves(record), record, tmp_path / "curves.png")
    assert pictures.is_of(tmp_path / "curves.png", json.loads(json.dumps(record, allow_nan=False)))
    for mode, candidates in (("published", 1), ("fast", 4)):
        config = dataclasses.replace(CONFIG, mode=mode)
        training_set = driver.prepare(frames, config, jax.random.key(0), plan="float32")
        walk, losses, seconds, copy = bench_train._time_steps(training_set, config, 1)
        assert walk.rows.shape == (candidates, 10) and losses.shape == (5, candidates)
        assert seconds > 0 and copy > 0


def test_the_published_step_in_torch_and_ours_agree():
    pytest.importorskip("torch")
    rows = bench_train.bench_step(make_frames(400), CONFIG, repeats=2)
    assert all(row["agrees"] for row in rows if row["unit"] == "ms")


def test_published_step_in_torch_has_the_loss_of_the_paper():
    torch = pytest.importorskip("torch")
    from experiments import published_torch

    frames, weights = make_frames(30), torch.full((30, 30), 1 / 900)
    start = np.asarray(jax.random.normal(jax.random.key(0), (10,)))
    step = published_torch.PublishedStep(
        start, 0.3, dataclasses.replace(CONFIG, learning_rate=0.1), "cpu"
    )
    target = np.exp((frames @ frames.T - 1) / 0.3)
    code = np.where(frames @ start[:-1] + start[-1] >= 0, 1.0, -1.0)
    loss = float(step(torch.tensor(frames), weights))
    assert loss == pytest.approx(np.mean(((np.outer(code, code) + 1) / 2 - target) ** 2), abs=1e-5)
    # Adam's first step has the length of the learning rate in every coordinate.
    moved = np.abs(step.hyperplane.detach().numpy()[:, 0] - start)
    np.testing.assert_allclose(moved, 0.1, rtol=1e-2)

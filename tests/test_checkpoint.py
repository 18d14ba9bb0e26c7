import dataclasses
import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from blsh_jax.config import FitConfig
from blsh_jax.training import driver
from tests.test_driver import make_frames

CONFIG = FitConfig(num_bits=4, block_size=50, fast_candidates=8, fast_steps=40)
LONGER = dataclasses.replace(CONFIG, num_bits=150, fast_steps=100)  # time to be killed in


def fit(config=CONFIG, frames=None, **options):
    frames = make_frames() if frames is None else frames
    return driver.fit(frames, config, jax.random.key(0), **options)


def stop_after(monkeypatch, count, error):
    """Make the step after ``count`` bits raise ``error``."""
    original, calls = driver.step, []

    def step(*arguments):
        calls.append(None)
        if len(calls) > count:
            raise error
        return original(*arguments)

    monkeypatch.setattr(driver, "step", step)


def test_interrupt_leaves_the_bits_so_far_if_any(monkeypatch):
    whole, _ = fit()
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        hasher, info = fit()
    assert info.interrupted
    assert hasher.num_bits == len(info.epsilon) == 2
    np.testing.assert_array_equal(hasher.projections, whole.prefix(2).projections)
    stop_after(monkeypatch, 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fit()


def test_resumed_run_equals_uninterrupted_run(monkeypatch, tmp_path):
    path = tmp_path / "run.npz"
    whole, whole_info = fit()
    with monkeypatch.context() as patch:
        stop_after(patch, 2, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(checkpoint=path)
    resumed, info = fit(checkpoint=path)
    for ours, theirs in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(info.objective, whole_info.objective)
    again, _ = fit(checkpoint=path)
    np.testing.assert_array_equal(again.projections, whole.projections)
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


_RUN = """
import sys
from tests.test_checkpoint import LONGER, fit
fit(LONGER, checkpoint=sys.argv[1])
"""


@pytest.mark.slow
def test_a_run_killed_30_times_goes_on_to_the_same_bits(tmp_path):
    path, delays = tmp_path / "run.npz", np.random.default_rng(0).uniform(0, 0.1, 30)
    num_bits = 0
    for delay in delays:
        before = path.stat().st_mtime_ns if path.exists() else None
        with subprocess.Popen([sys.executable, "-c", _RUN, str(path)]) as process:
            while not path.exists() or path.stat().st_mtime_ns == before:
                assert process.poll() is None
                time.sleep(0.002)
            time.sleep(delay)
            process.kill()
        with np.load(path) as killed:
            assert num_bits < len(killed["betas"]) < LONGER.num_bits
            num_bits = len(killed["betas"])
        assert len(list(tmp_path.iterdir())) <= 2  # what the last one left, and no more
    resumed, _ = fit(LONGER, checkpoint=path)
    assert list(tmp_path.iterdir()) == [path]
    whole, _ = fit(LONGER)
    np.testing.assert_array_equal(resumed.projections, whole.projections)
    np.testing.assert_array_equal(resumed.betas, whole.betas)


def test_damage_and_other_settings_or_frames_are_refused_with_the_difference(tmp_path):
    path = tmp_path / "run.npz"
    fit(checkpoint=path)
    with pytest.raises(ValueError, match=r"config.sigma2: 0.3 in the checkpoint, 0.5 now"):
        fit(dataclasses.replace(CONFIG, sigma2=0.5), checkpoint=path)
    with pytest.raises(ValueError, match=r"frames: 210x9 float32 .* in the checkpoint"):
        fit(frames=make_frames(seed=9), checkpoint=path)
    content = path.read_bytes()
    for damaged in (b"", b"not a checkpoint", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run\.npz is not a whole checkpoint"):
            fit(checkpoint=path)


def test_log_has_one_line_per_bit_and_says_why_a_run_ended(monkeypatch, tmp_path, capsys):
    path = tmp_path / "logs" / "run.jsonl"
    _, info = fit(log=path, progress=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", *["bit"] * 4, "end"]
    assert [line["bit"] for line in lines[1:-1]] == [1, 2, 3, 4]
    assert [line["epsilon"] for line in lines[1:-1]] == info.epsilon.tolist()
    assert lines[0]["plan"] == info.plan
    assert lines[-1]["error"] is None
    screen = "".join(capsys.readouterr())
    assert all(word in screen for word in ("memory plan float32", "epsilon", "frames/s"))
    path.write_text("\n".join(json.dumps(line) for line in lines)[:-9])
    stop_after(monkeypatch, 1, RuntimeError("power cut"))
    with pytest.raises(RuntimeError):
        fit(log=path)
    added = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in added] == ["start", *["bit"] * 4, "start", "bit", "end"]
    assert added[-1]["error"] == "RuntimeError: power cut"

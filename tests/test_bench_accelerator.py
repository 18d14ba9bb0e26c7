"""The accelerator benchmark runs whole without one; a part that fails does not stop the next."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import launching
import pytest

from experiments import bench_accelerator

SCRIPT = Path(bench_accelerator.__file__).with_suffix(".sh")


@pytest.mark.slow
def test_every_part_agrees_with_itself_on_a_cpu(tmp_path):
    record = tmp_path / "accelerator.json"
    command = [shutil.which("bash") or "bash", SCRIPT, record, "--sizes=small"]
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, check=True, cwd=SCRIPT.parents[1], env=environment)
    rows = json.loads(record.read_text())["results"]
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) == 14
    assert all(row["agrees"] is not False and "error" not in row for row in rows)
    assert sum(row["agrees"] is True for row in rows) == 9


def test_a_part_that_fails_is_a_row_and_the_next_one_runs(tmp_path, monkeypatch):
    def fails(*_):
        yield bench_accelerator.timing.row("before", "", 1.0, None, "s", True)
        raise RuntimeError("out of memory")

    def works(*_):
        yield bench_accelerator.timing.row("after", "", 1.0, None, "s", True)

    monkeypatch.setattr(bench_accelerator, "_PARTS", {"search": fails, "ferns": works})
    record = tmp_path / "r.json"
    said = launching.run(
        "bench_accelerator", f"--output={record}", "--parts=search,ferns", "--sizes=small"
    )
    assert said == "not as on the CPU: search"
    rows = json.loads(record.read_text())["results"]
    assert [row["name"] for row in rows] == ["before", "search", "after"]
    assert "out of memory" in rows[1]["error"]

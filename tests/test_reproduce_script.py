"""The script of the whole evaluation, with a stand-in for Python that only writes files."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAND_IN = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
[[ $2 == "experiments.$FAILS" ]] && exit 1
for flag in "$@"; do [[ $flag == --output=* ]] && echo made > "${flag#--output=}"; done
exit 0
"""


@pytest.fixture
def reproduce(tmp_path):
    """Runs the script; gives its lines, its status and the calls of this run."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def run(*flags, open_speech="speech2", fails="nothing"):
        calls.write_text("")
        found = subprocess.run(
            ["bash", "experiments/reproduce.sh", "speech", "noise", open_speech, "noise2",
             str(tmp_path / "out"), *flags],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHON": str(python), "CALLS": str(calls), "FAILS": fails},
        )  # fmt: skip
        made = {
            line.split()[1].removeprefix("experiments."): line
            for line in calls.read_text().splitlines()
        }
        return found.stdout.splitlines(), found.returncode, made

    return run


def test_every_record_is_made_once_and_kept_afterwards(reproduce, tmp_path):
    lines, status, calls = reproduce("--fc_units=8", "--voices=v", "--seed=3")
    assert status == 0
    assert lines[-1] == "== all done but: nothing"
    names = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert names >= {f"{name}.json" for name in ("table1", "figure2", "figure3", "authors", "open")}
    # A launch has the flags that it knows.
    assert [name for name in calls if "--fc_units=8" in calls[name]] == ["table1"]
    assert [name for name in calls if "--voices=v" in calls[name]] == ["authors"]
    assert {name for name in calls if "--seed=3" not in calls[name]} == {"complexity", "evaluate"}
    lines, status, calls = reproduce("--fc_units=8", "--voices=v", "--seed=3")
    assert (status, calls) == (0, {})
    assert all(line.endswith(("kept", "nothing")) for line in lines)
    _, _, calls = reproduce("--fc_units=9", "--voices=v", "--seed=3")
    assert list(calls) == ["table1"]


def test_a_launch_that_fails_is_named_and_made_the_next_time(reproduce):
    lines, status, calls = reproduce(fails="figure2")
    assert (status, lines[-1]) == (1, "== all done but: figure2.json")
    assert "authors" in calls
    _, status, calls = reproduce()
    assert (status, list(calls)) == (0, ["figure2"])


def test_the_papers_protocol_has_no_open_speech(reproduce):
    _, status, calls = reproduce("--protocol=paper", open_speech="")
    assert status == 0
    assert not any("--open_speech" in call for call in calls.values())
    assert not {"train", "evaluate"} & set(calls)

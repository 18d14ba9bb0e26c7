"""Launches say what is wrong with their flags before they work."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def launch(name, *arguments):
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--output=o.txt", "--model=small"), "that ends in .json"),
        (("evaluate", "--output=o.json", "--model=small", "--num_bits=99"), "the model has 64"),
        (("unseen", "--output=o.json", "--lengths=25,x"), "--lengths=25,x: give numbers"),
        (("train", "--output=o.json"), "that ends in .npz"),
    ],
)
def test_wrong_flags_are_named_before_any_work(arguments, message, tmp_path):
    done = launch(*arguments, f"--speech={tmp_path}", f"--noise={tmp_path}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_what_the_general_recipe_has_instead():
    said = " ".join(launch("train", "--help").stdout.split())
    assert (
        "K, the neighbours whose masks are averaged. --recipe=general has 40. (default: '10')"
        in said
    )

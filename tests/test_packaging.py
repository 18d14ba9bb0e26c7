"""The wheel and the source archive, built from a copy and used outside the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from blsh_jax._version import __version__

ROOT = Path(__file__).parents[1]
# What the archives are made of; a checkout can hold much else (environments, recordings).
SOURCES = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "MANIFEST.in", "blsh_jax", "docs",
    "experiments", "notebooks", "tests",
)  # fmt: skip


def run(*command, cwd, **environment):
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The source archive, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("packaging")
    copy, out = folder / "copy", folder / "out"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy, cwd=folder)
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, wheel


def test_the_wheel_holds_the_package_alone_and_the_source_archive_its_tests(archives):
    source, wheel = archives
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"blsh_jax-{__version__}-py3-none-any.whl"
    top = {name.partition("/")[0] for name in names}
    assert top == {"blsh_jax", f"blsh_jax-{__version__}.dist-info"}
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("**/*.py", "py.typed", "models/*.npz", "export/c/*")
        for path in (ROOT / "blsh_jax").glob(pattern)
    }
    assert "blsh_jax/py.typed" in expected and expected <= set(names)
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "tests/conftest.py", "experiments/train.py", "pyproject.toml"} <= names
    assert not any("__pycache__" in name for name in names)


_WITHOUT_EXTRAS = """
import sys
for name in ("optax", "flax", "absl", "matplotlib", "PIL", "flatbuffers", "sounddevice"):
    sys.modules[name] = None  # as if it were not installed
import numpy as np
import blsh_jax as blsh
from blsh_jax import cli
assert blsh.denoise(np.zeros(3200, np.float32), 16_000, blsh.load_pretrained("small")).size == 3200
assert np.isfinite(np.asarray(blsh.si_sdr(np.eye(2, 50), np.eye(2, 50) + 0.1))).all()
for command in sys.stdin.read().splitlines():
    try:
        cli.main(command.split())
    except SystemExit as end:
        print(end.code, flush=True)
"""


def test_without_the_extras_it_denoises_and_names_the_one_that_a_command_needs(tmp_path):
    missing = {
        "train --output m.npz": "train", "evaluate --model small": "train", "demo": "train,report",
        "live": "live", f"export --model small --format stablehlo {tmp_path}": "export",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS], input="\n".join(missing), cwd=tmp_path,
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    expected = "".join(
        f"blsh: this needs the extra {name!r}: pip install 'blsh_jax[{name}]'\n"
        for name in missing.values()
    )
    assert (done.stdout, done.stderr) == ("2\n" * len(missing), expected)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_package_runs_outside_the_checkout(archives, tmp_path):
    installed = tmp_path / "installed"
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*command, "--target", installed, archives[1], cwd=tmp_path)
    outside = {"cwd": tmp_path, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    code = "import blsh_jax; print(blsh_jax.__file__, blsh_jax.__version__)"
    expected = f"{installed / 'blsh_jax' / '__init__.py'} {__version__}\n"
    assert run(sys.executable, "-c", code, **outside) == expected
    assert run(installed / "bin" / "blsh", "--version", **outside) == f"blsh {__version__}\n"

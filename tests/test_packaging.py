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


def test_the_installed_package_runs_outside_the_checkout(archives, tmp_path):
    installed = tmp_path / "installed"
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*command, "--target", installed, archives[1], cwd=tmp_path)
    outside = {"cwd": tmp_path, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    code = "import blsh_jax; print(blsh_jax.__file__, blsh_jax.__version__)"
    expected = f"{installed / 'blsh_jax' / '__init__.py'} {__version__}\n"
    assert run(sys.executable, "-c", code, **outside) == expected
    assert run(installed / "bin" / "blsh", "--version", **outside) == f"blsh {__version__}\n"

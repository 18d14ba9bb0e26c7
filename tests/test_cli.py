import subprocess
import sys

import numpy as np
import pytest
import soundfile

from blsh_jax import _version

RATE = 16000


@pytest.fixture
def folder(tmp_path, model_file):
    """Good files of several kinds, and bad ones, in a tree."""
    rng = np.random.default_rng(0)
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    noise = 0.1 * rng.standard_normal((9000, 2))
    soundfile.write(source / "a.flac", noise, 44100, subtype="PCM_24")
    soundfile.write(source / "sub" / "b.wav", noise[:, 0], 8000, subtype="PCM_16")
    soundfile.write(source / "silent.wav", np.zeros((480, 3)), 48000, subtype="FLOAT")
    (source / "text.wav").write_text("not audio")
    (source / "empty.wav").write_bytes(b"")
    whole = (source / "a.flac").read_bytes()
    (source / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(source / "nan.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    return source


def blsh(*arguments):
    """The blsh command in its own process."""
    command = [sys.executable, "-m", "blsh_jax.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_keeps_its_tree_and_bad_files_are_named(folder, tmp_path, model_file):
    out = tmp_path / "out"
    done = blsh("denoise", folder, out, f"--model={model_file}")
    assert done.returncode == 1
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {"a.flac", "sub/b.wav", "silent.wav"}
    for name in written:
        before, after = soundfile.info(folder / name), soundfile.info(out / name)
        for attribute in ("samplerate", "channels", "frames", "subtype"):
            assert getattr(before, attribute) == getattr(after, attribute)
    for bad in ("text.wav", "empty.wav", "cut.flac", "nan.wav"):
        assert bad in done.stderr
    assert "3 denoised, 4 failed" in done.stdout
    stamps = {name: (out / name).stat().st_mtime_ns for name in written}
    again = blsh("denoise", folder, out, f"--model={model_file}")
    assert "3 already there" in again.stdout
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in written}


def test_one_file_and_usage_errors(tmp_path, model_file):
    soundfile.write(tmp_path / "x.wav", 0.1 * np.ones(3000), RATE)
    done = blsh("denoise", tmp_path / "x.wav", tmp_path / "y.wav", f"--model={model_file}")
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "y.wav").frames == 3000
    for arguments, message in (
        (("denoise", tmp_path / "no.wav", tmp_path / "z.wav"), "no.wav"),
        (("denoise", tmp_path / "x.wav"), "INPUT and OUTPUT"),
        (("clean",), "unknown command"),
        (("denoise", tmp_path / "x.wav", tmp_path / "z.wav", "--model=no.npz"), "no.npz"),
    ):
        failed = blsh(*arguments)
        assert failed.returncode != 0
        assert message in failed.stderr + failed.stdout
    assert not (tmp_path / "z.wav").exists()


def test_version():
    assert blsh("--version").stdout == f"blsh {_version.__version__}\n"

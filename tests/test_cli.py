"""The blsh command in its own process."""

import dataclasses
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from small_models import random_model

from blsh_jax import _version, audio, bulk, cli, model

RATE = 16000


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A small model, as a file."""
    path = tmp_path_factory.mktemp("small") / "model.npz"
    provenance = {"speech": {"layout": "made up", "licence": "none"}}
    model.save(dataclasses.replace(random_model(), provenance=provenance), path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Good files of several kinds, and bad ones, in a tree."""
    rng = np.random.default_rng(0)
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    noise = 0.1 * rng.standard_normal((9000, 2))
    soundfile.write(source / "a.flac", noise, 44100, subtype="PCM_24")
    soundfile.write(source / "sub" / "b.wav", noise[:, 0], 8000, subtype="PCM_16")
    soundfile.write(source / "silent.wav", np.zeros((480, 3)), 48000, subtype="FLOAT")
    (source / "text.wav").write_text("not audio")
    (source / os.fsdecode(b"caf\xe9.wav")).write_text("not audio either")
    (source / "empty.wav").write_bytes(b"")
    whole = (source / "a.flac").read_bytes()
    (source / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(source / "nan.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    return source


def command(*arguments):
    return [sys.executable, "-m", "blsh_jax.cli", *map(str, arguments)]


def blsh(*arguments, **options):
    """The blsh command, ended."""
    options = {"capture_output": True, "text": True, "check": False} | options
    return subprocess.run(command(*arguments), **options)


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_keeps_its_tree_and_bad_files_are_named(folder, tmp_path, used):
    out = tmp_path / "out"
    done = blsh("denoise", folder, out, f"--model={used}", "--device=cpu")
    assert done.returncode == 1
    written = files_of(out)
    assert written == {"a.flac", "sub/b.wav", "silent.wav"}
    for name in written:
        before, after = soundfile.info(folder / name), soundfile.info(out / name)
        for attribute in ("samplerate", "channels", "frames", "subtype"):
            assert getattr(before, attribute) == getattr(after, attribute)
    for bad in ("text.wav", "empty.wav", "cut.flac", "nan.wav", "caf"):
        assert bad in done.stderr
    assert "3 denoised, 5 failed" in done.stdout
    stamps = {name: (out / name).stat().st_mtime_ns for name in written}
    again = blsh("denoise", folder, out, f"--model={used}")
    assert "3 already there, 5 failed" in again.stdout
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in written}


def test_settings_reach_the_files_and_overwrite_writes_over(tmp_path, used):
    noisy = (0.1 * np.random.default_rng(0).standard_normal(9000)).astype(np.float32)
    audio.write(tmp_path / "x.wav", noisy, RATE)
    audio.write(tmp_path / "y.wav", np.zeros(5, np.float32), RATE)
    arguments = ("denoise", tmp_path / "x.wav", tmp_path / "y.wav", f"--model={used}")
    done = blsh(*arguments, "--overwrite", "--dry_wet=0")
    assert done.returncode == 0, done.stderr
    assert "1 denoised" in done.stdout and "real time" in done.stdout
    assert (tmp_path / "x.wav").read_bytes() == (tmp_path / "y.wav").read_bytes()


def test_standard_input_and_output(tmp_path, used):
    noisy = 0.1 * np.random.default_rng(0).standard_normal((9000, 2))
    soundfile.write(tmp_path / "x.flac", noisy, 22050, subtype="PCM_24")
    sent = (tmp_path / "x.flac").read_bytes()
    done = blsh("denoise", "-", "-", f"--model={used}", input=sent, text=False)
    assert done.returncode == 0, done.stderr
    info = soundfile.info(io.BytesIO(done.stdout))
    assert (info.format, info.subtype, info.frames) == ("WAV", "PCM_24", 9000)
    assert (info.samplerate, info.channels) == (22050, 2)
    failed = blsh("denoise", "-", "-", f"--model={used}", input=b"not audio", text=False)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert b"  standard input: not readable" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("denoise", "no.wav", "z.wav"), "no.wav: no such file"),
        (("denoise", "x.wav"), "required: OUTPUT"),
        (("denoise", "x.wav", "x.wav"), "also an input"),
        (("denoise", ".", "-"), "standard output takes one file"),
        (("denoise", "x.wav", "z.wav", "--model=no.npz"), "no.npz"),
        (("denoise", "x.wav", "z.wav", "--dry_wet=2"), "dry_wet is 2"),
        (("denoise", "x.wav", "z.wav", "--device=abacus"), "abacus"),
        (("clean",), "invalid choice"),
        ((), "required: COMMAND"),
    ],
)
def test_usage_errors_say_what_to_do(tmp_path, used, arguments, message, monkeypatch, capsys):
    soundfile.write(tmp_path / "x.wav", 0.1 * np.ones(300), RATE)
    if arguments[:1] == ("denoise",) and "--model=no.npz" not in arguments:
        arguments = (*arguments, f"--model={used}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert files_of(tmp_path) == {"x.wav"}


def test_killed_half_way_leaves_nothing_under_the_name_and_is_done_again(tmp_path, used):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    noisy = 0.1 * np.random.default_rng(0).standard_normal(60 * 16000)
    soundfile.write(source / "x.wav", np.tile(noisy, 20), RATE)
    arguments = command("denoise", source, out, f"--model={used}")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not (out.is_dir() and any(path.stat().st_size > 1e6 for path in out.iterdir())):
            assert run.poll() is None
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    left = files_of(out)
    assert "x.wav" not in left and len(left) == 1
    soundfile.write(source / "x.wav", noisy[:RATE], RATE)
    done = blsh("denoise", source, out, f"--model={used}")
    assert done.returncode == 0 and "1 denoised" in done.stdout
    assert soundfile.info(out / "x.wav").frames == RATE
    assert [path.name for path in audio.find_audio(out)] == ["x.wav"]


def test_ended_half_way_removes_what_was_temporary(tmp_path, used):
    noisy = 0.1 * np.random.default_rng(0).standard_normal(60 * 16000)
    soundfile.write(tmp_path / "x.wav", np.tile(noisy, 20), RATE)
    (tmp_path / "out").mkdir()
    arguments = command("denoise", tmp_path / "x.wav", tmp_path / "out", f"--model={used}")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not any(path.stat().st_size > 1e6 for path in (tmp_path / "out").iterdir()):
            assert run.poll() is None
            time.sleep(0.005)
        run.send_signal(signal.SIGTERM)
    assert run.returncode == 128 + signal.SIGTERM
    assert files_of(tmp_path / "out") == set()


def test_inputs_are_never_written_over(tmp_path):
    (tmp_path / "in" / "in").mkdir(parents=True)
    for name in ("in/x.wav", "in/in/x.wav"):
        soundfile.write(tmp_path / name, np.zeros(10), RATE)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for target in ("in", "link", "", "in/out"):
        with pytest.raises(ValueError, match=r"also an input|lies inside"):
            bulk.find_pairs(tmp_path / "in", tmp_path / target)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no audio files"):
        bulk.find_pairs(tmp_path / "none", tmp_path / "out")
    assert bulk.find_pairs(tmp_path / "in" / "x.wav", tmp_path / "none") == [
        (tmp_path / "in" / "x.wav", tmp_path / "none" / "x.wav")
    ]


def test_info_states_bytes_operations_latency_and_speed(used):
    facts = json.loads(blsh("info", f"--model={used}", "--json").stdout)
    assert facts["bytes"] == {
        "projections": 40 * 513 * 4 + 40 * 4,
        "codes": 300 * 2 * 4,
        "masks": 300 * 17 * 4,
    }
    assert (facts["latency_samples"], facts["latency_ms"], facts["hop_ms"]) == (768, 48.0, 16.0)
    assert facts["operations_per_frame"]["projection"] == 2 * 40 * 513
    assert facts["operations_per_frame"]["search"] == 2 * 300 * 2
    assert 0 < facts["real_time_factor_live"] < 1
    text = blsh("info", f"--model={used}").stdout
    for part in (
        "40 bits",
        "speech     layout made up, licence none",
        "latency    48 ms (768 samples)",
        "real-time factor",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["denoise", "live", "info", "export", "demo"])
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    help_text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"blsh {name}" in help_text and len(help_text) > 200


def test_the_package_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["blsh", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("blsh_jax", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"blsh {_version.__version__}"


def test_version():
    assert blsh("--version").stdout == f"blsh {_version.__version__}\n"


def test_export_writes_a_smaller_model(tmp_path, used, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["export", str(tmp_path), "--format=c", f"--model={used}", "--num_bits=9"]
            + ["--num_frames=20"]
        )
    assert ended.value.code == 0
    assert "#define BLSH_FRAMES 20\n" in (tmp_path / "blsh_sizes.h").read_text()
    said = capsys.readouterr().out
    for path in tmp_path.iterdir():
        assert f"{path} ({path.stat().st_size:,} bytes)" in said


def test_shipped_models_are_known_by_name(tmp_path):
    facts = json.loads(blsh("info", "--model=small", "--json").stdout)
    assert facts["bits"] == model.load_shipped("small").hasher.num_bits
    refused = blsh("info", f"--model={tmp_path}/small")
    assert refused.returncode == 2 and "no model at" in refused.stderr

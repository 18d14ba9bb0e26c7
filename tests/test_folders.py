"""Folder runs: every entry by itself, whatever it is, and a summary however the run ends."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from small_models import random_model

from blsh_jax import models
from blsh_jax.corpora import audio
from blsh_jax.denoising import folders

RATE = 16_000
MODEL = random_model()


@pytest.fixture
def source(tmp_path):
    """A folder to read, with one good file."""
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder / "good.wav")
    return folder


def put(path, num_samples=900):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(num_samples), RATE)


def denoise(source, target, **settings):
    pairs, failed = folders.find_pairs(source, target)
    summary = folders.denoise_files(pairs, MODEL, folders.Settings(**settings))
    return summary._replace(failed=failed + summary.failed)


def test_what_is_no_file_is_named_and_the_others_are_done(source, tmp_path, monkeypatch):
    (source / "loop.wav").symlink_to("loop.wav")
    (source / "around").symlink_to(".")
    (source / "nothing.wav").symlink_to("missing.wav")
    (source / "null.wav").symlink_to("/dev/null")
    os.mkfifo(source / "pipe.wav")
    name = os.fsdecode(b"caf\xe9.wav")
    put(source / "renamed.wav")
    (source / "renamed.wav").rename(source / name)
    put(source / "closed" / "x.wav")
    list_folder = os.scandir

    def scandir(path):  # the rights of a folder do not bind every user
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(source / "socket.wav"))
        summary = denoise(source, tmp_path / "out")
    reasons = {
        "closed": "Permission denied",
        "loop.wav": "a link to nothing, or to itself",
        "nothing.wav": "a link to nothing, or to itself",
        "null.wav": "no regular file",
        "pipe.wav": "no regular file",
        "socket.wav": "no regular file",
    }
    said = sorted(summary.failed)
    assert len(said) == len(reasons)
    for message, (entry, reason) in zip(said, reasons.items(), strict=True):
        assert str(source / entry) in message and reason in message
    assert sorted(os.listdir(tmp_path / "out")) == sorted(["good.wav", name])
    assert str(summary).startswith("2 denoised, 6 failed: ")


def test_files_of_every_suffix_are_done_and_those_that_nothing_reads_are_named(source, tmp_path):
    whole = (source / "good.wav").read_bytes()
    written = {".rf64": "RF64", ".w64": "W64", ".caf": "CAF", ".snd": "AU", ".aifc": "AIFF"}
    for suffix, kind in written.items():
        samples, _ = soundfile.read(source / "good.wav")
        soundfile.write(source / f"x{suffix}", samples, RATE, format=kind)
    (source / "x.wave").write_bytes(whole)
    for suffix in (".m4a", ".webm", ".wma"):
        (source / f"x{suffix}").write_bytes(b"no sound that libsndfile knows" * 9)
    (source / "notes.txt").write_text("not audio")
    summary = denoise(source, tmp_path / "out")
    assert (summary.done, len(summary.failed)) == (7, 3)
    for message, suffix in zip(summary.failed, (".m4a", ".webm", ".wma"), strict=True):
        assert f"x{suffix}: not readable as audio" in message and "ffmpeg -i" in message
    for suffix, kind in written.items():
        info = soundfile.info(tmp_path / "out" / f"x{suffix}")
        assert (info.format, info.frames) == (kind, 900)


def test_what_is_there_is_kept_and_what_is_no_file_there_is_refused(source, tmp_path):
    for name in ("folder.wav", "kept.wav", "pipe.wav"):
        put(source / name)
    out = tmp_path / "out"
    (out / "folder.wav").mkdir(parents=True)
    (out / "kept.wav").write_text("whatever it holds")
    os.mkfifo(out / "pipe.wav")
    summary = denoise(source, out)
    assert (summary.done, summary.kept, summary.left, summary.stopped) == (1, 1, 0, None)
    assert ["folder.wav: not written (is a folder" in text for text in summary.failed] == [1, 0]
    assert ["pipe.wav: not written (is a device or" in text for text in summary.failed] == [0, 1]
    assert (out / "kept.wav").read_text() == "whatever it holds"
    assert denoise(source, out, overwrite=True).done == 2
    assert soundfile.info(out / "kept.wav").frames == 900


@pytest.mark.parametrize("again", [{}, {"overwrite": True}])
def test_two_entries_of_one_output_are_refused_by_name(source, tmp_path, again):
    put(source / "a" / "x.wav", 300)
    put(source / "b" / "x.wav", 500)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "b").symlink_to("a")
    for settings in ({}, again):
        summary = denoise(source, tmp_path / "out", **settings)
        (message,) = summary.failed
        assert message.startswith(f"{source / 'b' / 'x.wav'}: its output is that of ")
        assert str(source / "a" / "x.wav") in message
        assert soundfile.info(tmp_path / "out" / "a" / "x.wav").frames == 300
        assert summary.done + summary.kept == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_stopped_run_says_what_was_done(source, tmp_path, monkeypatch, stop):
    for name in ("first.wav", "later.wav", "never.wav"):
        put(source / name)
    (source / "a text.wav").write_text("not audio")
    denoise_file = folders.denoise_file

    def stopped_at_the_second(path, *arguments, progress, **options):
        def stopping(seconds):
            raise stop

        progress = stopping if path.name == "later.wav" else progress
        return denoise_file(path, *arguments, progress=progress, **options)

    monkeypatch.setattr(folders, "denoise_file", stopped_at_the_second)
    summary = denoise(source, tmp_path / "out")
    assert summary.stopped is stop
    assert (summary.done, len(summary.failed), summary.left) == (2, 1, 2)
    assert "2 denoised, 1 failed, 2 not done" in str(summary)
    assert sorted(os.listdir(tmp_path / "out")) == ["first.wav", "good.wav"]
    monkeypatch.setattr(folders, "denoise_file", denoise_file)
    assert str(denoise(source, tmp_path / "out")).startswith("2 denoised, 2 already there, 1 fail")


def test_an_error_of_any_kind_is_that_of_its_file_alone(source, tmp_path, monkeypatch):
    put(source / "large.wav")
    denoise_file = folders.denoise_file

    def short_of_memory(path, *arguments, **options):
        if path.name == "large.wav":
            raise MemoryError("Unable to allocate 1 TiB")
        return denoise_file(path, *arguments, **options)

    monkeypatch.setattr(folders, "denoise_file", short_of_memory)
    summary = denoise(source, tmp_path / "out")
    assert summary.done == 1
    assert summary.failed == [f"{source / 'large.wav'}: Unable to allocate 1 TiB"]


@pytest.mark.slow
def test_after_20_kills_every_file_is_whole_and_the_next_run_does_the_rest(tmp_path):
    source, whole, model = tmp_path / "in", tmp_path / "whole", tmp_path / "model.npz"
    models.save(MODEL, model)
    rng = np.random.default_rng(0)
    for number in range(10):
        suffix = ("wav", "flac", "ogg", "opus", "mp3")[number % 5]
        signal = np.float32(0.1 * rng.standard_normal((1, RATE * 8)))
        audio.write(source / "sub" / f"{number}.{suffix}", signal, RATE)
    assert denoise(source, whole).done == 10
    expected = {path.name: audio.read(path)[0] for path in (whole / "sub").iterdir()}
    command = [sys.executable, "-m", "blsh_jax", "denoise", source, None, f"--model={model}"]
    finished = []
    for kill in range(20):
        out = tmp_path / f"out {kill}" / "sub"
        command[5] = out.parent
        at, delay = rng.integers(len(expected)), rng.uniform(0, 0.3)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
            while not out.is_dir() or len(audio.find_audio(out)) < at:
                assert run.poll() is None
                time.sleep(0.002)
            time.sleep(delay)
            run.kill()
        found = audio.find_audio(out)
        for path in found:
            np.testing.assert_array_equal(audio.read(path)[0], expected[path.name])
        assert denoise(source, out.parent)[:3] == (10 - len(found), len(found), [])
        assert {name: audio.read(out / name)[0].tobytes() for name in os.listdir(out)} == {
            name: signal.tobytes() for name, signal in expected.items()
        }
        finished.append(len(found))
    assert len(set(finished)) > 5  # all along the run

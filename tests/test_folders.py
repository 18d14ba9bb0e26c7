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
    found = folders.find_pairs([source], target, settings.get("preview", False))
    return folders.denoise_files(found, MODEL, folders.Settings(**settings))


def messages_of(summary, status):
    """What is said of files that ended so, and of what could not be looked into."""
    ended = [text for o in summary.outcomes if o.status == status for text in o.messages]
    return summary.unlisted * (status == "failed") + ended


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
    said = sorted(messages_of(summary, "failed"))
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
    assert (summary.count("denoised"), summary.count("failed")) == (7, 3)
    for message, suffix in zip(
        messages_of(summary, "failed"), (".m4a", ".webm", ".wma"), strict=True
    ):
        assert f"x{suffix}: not readable as audio" in message and "ffmpeg -i" in message
    for suffix, kind in written.items():
        info = soundfile.info(tmp_path / "out" / f"x{suffix}")
        assert (info.format, info.frames) == (kind, 900)


@pytest.mark.parametrize("length", [240, 241, 255])
def test_names_as_long_as_the_system_takes(source, tmp_path, length):
    name = "n" * (length - 4) + ".wav"
    put(source / name)
    assert denoise(source / name, tmp_path / "out" / name).succeeded
    assert os.listdir(tmp_path / "out") == [name]


def test_progress_counts_files_and_seconds_and_only_on_a_terminal(
    source, tmp_path, monkeypatch, capfd
):
    put(source / "long.mp3", 30_001)
    denoise(source, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(audio, "seconds", lambda path: 1.0)  # less than there is, as MP3 may say
    denoise(source, tmp_path / "out", overwrite=True, quiet=True)
    assert capfd.readouterr() == ("", "")
    denoise(source, tmp_path / "out", overwrite=True)
    said = capfd.readouterr().err
    assert "2/2 long.mp3" in said and "/2 s of audio [00:" in said and " left]" in said


def test_an_output_older_than_its_input_is_no_success(source, tmp_path):
    target = tmp_path / "out" / "good.wav"
    assert denoise(source, tmp_path / "out").succeeded
    again = denoise(source, tmp_path / "out")
    assert again.succeeded and str(again) == "0 denoised, 1 kept (already there; give --overwrite)"
    os.utime(source / "good.wav", (2e9, 2e9))
    stale = denoise(source, tmp_path / "out")
    assert not stale.succeeded and "1 kept though the input is newer" in str(stale)
    said = f"{target}: kept, though {source / 'good.wav'} is newer; give --overwrite"
    assert stale.messages == [said]
    assert denoise(source, tmp_path / "out", overwrite=True).succeeded


def test_several_inputs_go_into_one_folder_each_under_its_name(source, tmp_path):
    put(tmp_path / "more" / "deep" / "x.wav")
    put(tmp_path / "y.wav")
    inputs = [source, tmp_path / "more", tmp_path / "y.wav", tmp_path / "missing.wav"]
    found = folders.find_pairs(inputs, tmp_path / "out")
    below = [str(target.relative_to(tmp_path / "out")) for _, target in found.pairs]
    assert below == ["in/good.wav", "more/deep/x.wav", "y.wav"]
    assert found.failed == [f"{tmp_path / 'missing.wav'}: no such file or folder"]
    summary = folders.denoise_files(found, MODEL, folders.Settings())
    assert (summary.count("denoised"), summary.count("failed"), summary.succeeded) == (3, 1, False)
    for several in (inputs[:2], inputs[:1]):
        with pytest.raises(ValueError, match=r"y\.wav: is a file, and"):
            folders.find_pairs(several, tmp_path / "y.wav")
    for slashed in ("new/", "in/new/"):
        (pair,) = folders.find_pairs([tmp_path / "y.wav"], f"{tmp_path}/{slashed}").pairs
        assert pair == (tmp_path / "y.wav", tmp_path / slashed / "y.wav")


def test_an_empty_name_is_refused(source, tmp_path):
    for sources, target in (([source], ""), ([""], tmp_path / "out"), ([source, ""], "out")):
        with pytest.raises(ValueError, match="is empty: give a name"):
            folders.find_pairs(sources, target)


def test_a_preview_is_the_start_under_a_name_of_its_own(source, tmp_path):
    put(source / "long.wav", 12 * RATE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "long.preview.wav").write_text("an earlier one")
    assert denoise(source, tmp_path / "out", preview=True).succeeded
    assert sorted(os.listdir(tmp_path / "out")) == ["good.preview.wav", "long.preview.wav"]
    assert denoise(source, tmp_path / "out").count("denoised") == 2
    whole, _ = soundfile.read(tmp_path / "out" / "long.wav")
    start, _ = soundfile.read(tmp_path / "out" / "long.preview.wav")
    assert len(start) == 10 * RATE
    np.testing.assert_allclose(start[: 9 * RATE], whole[: 9 * RATE], atol=2**-14)


def test_a_name_that_gets_too_long_is_cut(tmp_path):
    put(tmp_path / "x.wav")
    target = tmp_path / f"{'ü' * 125}.wav"
    assert denoise(tmp_path / "x.wav", target, preview=True).succeeded
    (written,) = tmp_path.glob("ü*")
    assert written.name == "ü" * 121 + ".preview.wav" and len(os.fsencode(written.name)) == 254
    assert folders.report_path(str(target)).name == "ü" * 121 + ".report.html"
    assert folders.report_path(str(tmp_path)).name == f"{tmp_path.name}.report.html"


def test_what_is_there_is_kept_and_what_is_no_file_there_is_refused(source, tmp_path):
    for name in ("folder.wav", "kept.wav", "pipe.wav"):
        put(source / name)
    out = tmp_path / "out"
    (out / "folder.wav").mkdir(parents=True)
    (out / "kept.wav").write_text("whatever it holds")
    os.mkfifo(out / "pipe.wav")
    summary = denoise(source, out)
    assert (summary.count("denoised"), summary.count("kept"), summary.stopped) == (1, 1, None)
    assert [
        "folder.wav: not written (is a folder" in text for text in messages_of(summary, "failed")
    ] == [1, 0]
    assert [
        "pipe.wav: not written (is a device or" in text for text in messages_of(summary, "failed")
    ] == [0, 1]
    assert (out / "kept.wav").read_text() == "whatever it holds"
    assert denoise(source, out, overwrite=True).count("denoised") == 2
    assert soundfile.info(out / "kept.wav").frames == 900


@pytest.mark.parametrize("again", [{}, {"overwrite": True}])
def test_two_entries_of_one_output_are_refused_by_name(source, tmp_path, again):
    put(source / "a" / "x.wav", 300)
    put(source / "b" / "x.wav", 500)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "b").symlink_to("a")
    for settings in ({}, again):
        summary = denoise(source, tmp_path / "out", **settings)
        (message,) = messages_of(summary, "failed")
        assert message.startswith(f"{source / 'b' / 'x.wav'}: its output is that of ")
        assert str(source / "a" / "x.wav") in message
        assert soundfile.info(tmp_path / "out" / "a" / "x.wav").frames == 300
        assert summary.count("denoised") + summary.count("kept") == 2


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
    assert [summary.count(s) for s in ("denoised", "failed", "not done")] == [2, 1, 2]
    assert "2 denoised, 1 failed, 2 not done" in str(summary)
    assert sorted(os.listdir(tmp_path / "out")) == ["first.wav", "good.wav"]
    monkeypatch.setattr(folders, "denoise_file", denoise_file)
    assert str(denoise(source, tmp_path / "out")).startswith(
        "2 denoised, 2 kept (already there; give --overwrite), 1 failed"
    )


def test_an_error_of_any_kind_is_that_of_its_file_alone(source, tmp_path, monkeypatch):
    put(source / "large.wav")
    denoise_file = folders.denoise_file

    def short_of_memory(path, *arguments, **options):
        if path.name == "large.wav":
            raise MemoryError("Unable to allocate 1 TiB")
        return denoise_file(path, *arguments, **options)

    monkeypatch.setattr(folders, "denoise_file", short_of_memory)
    summary = denoise(source, tmp_path / "out")
    assert summary.count("denoised") == 1
    assert messages_of(summary, "failed") == [f"{source / 'large.wav'}: Unable to allocate 1 TiB"]


@pytest.mark.slow
def test_after_20_kills_every_file_is_whole_and_the_next_run_does_the_rest(tmp_path):
    source, whole, model = tmp_path / "in", tmp_path / "whole", tmp_path / "model.npz"
    models.save(MODEL, model)
    rng = np.random.default_rng(0)
    for number in range(10):
        suffix = ("wav", "flac", "ogg", "opus", "mp3")[number % 5]
        signal = np.float32(0.1 * rng.standard_normal((1, RATE * 8)))
        audio.write(source / "sub" / f"{number}.{suffix}", signal, RATE)
    assert denoise(source, whole).count("denoised") == 10
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
        summary = denoise(source, out.parent)
        assert summary.succeeded and summary.count("kept") == len(found)
        assert {name: audio.read(out / name)[0].tobytes() for name in os.listdir(out)} == {
            name: signal.tobytes() for name, signal in expected.items()
        }
        finished.append(len(found))
    assert len(set(finished)) > 5  # all along the run

"""Standard test folders: files pair, bad ones are named, scores are those of mixtures."""

import json
import warnings

import launching
import numpy as np
import pytest
from small_models import random_model

from blsh_jax import corpora, evaluation, models
from blsh_jax.corpora import audio
from experiments import denoisers, pairs


@pytest.fixture(scope="module")
def mixtures(synthetic):
    """Three seconds of speech in noise, a second each, of unlike lengths."""
    made = corpora.make_mixtures(*synthetic, 5.0, 0, max_mixtures=3)
    return [
        mixture._replace(speech=mixture.speech[:n], noise=mixture.noise[:n])
        for mixture, n in zip(made, (16_000, 15_000, 14_001), strict=True)
    ]


def write(folder, names, signals, rate=16_000):
    for name, signal in zip(names, signals, strict=True):
        audio.write(folder / name, signal, rate, "FLOAT" if name.endswith(".wav") else None)
    return folder


def run(tmp_path, *arguments):
    """The record of a launch that went well."""
    output = tmp_path / "record.json"
    folders = (f"--clean={tmp_path / 'clean'}", f"--noisy={tmp_path / 'noisy'}")
    assert launching.run("pairs", *folders, f"--output={output}", *arguments) is None
    return json.loads(output.read_text())


@pytest.fixture
def dns(tmp_path, mixtures):
    """Folders as those of the DNS challenge, with one of outputs: the clean speech, half as loud"""
    ids = (1, 2, 13)
    write(tmp_path / "clean", [f"clean_fileid_{n}.wav" for n in ids], [m.speech for m in mixtures])
    noisy = [f"book_{n}_snr5_tl-21_fileid_{n}.wav" for n in ids]
    write(tmp_path / "noisy", noisy, [m.mixture for m in mixtures])
    write(tmp_path / "other", noisy, [m.speech / 2 for m in mixtures])
    return tmp_path


def test_scores_are_those_of_the_mixtures(dns, mixtures):
    model = random_model()
    models.save(model, dns / "m.npz")
    record = run(
        dns, f"--model={dns / 'm.npz'}", f"--outputs=half={dns / 'other'}", "--nolistening"
    )
    noisy, half, ours = record["results"]
    names = ["noisy", "half", str(dns / "m.npz")]
    assert [row["method"] for row in (noisy, half, ours)] == names
    # The second way knows the noise alone, and denoises padded batches.
    bits = model.hasher.num_bits
    systems = evaluation.make_systems(model, ("noisy", "blsh"), (bits,))
    for row, other in zip((noisy, ours), evaluation.evaluate(systems, mixtures), strict=True):
        for name in ("sdr", "si_sdr"):
            assert row[name] == pytest.approx(other[f"{name}_plain"], abs=0.02)
    assert half["sdr"] == half["si_sdr"] == 100.0  # as good as can be
    assert [row["files"] for row in record["results"]] == [3] * 3
    assert [row["file"] for row in record["by_file"][::3]] == ["fileid_1", "fileid_13", "fileid_2"]
    assert np.mean([row["sdr"] for row in record["by_file"][::3]]) == pytest.approx(noisy["sdr"])
    assert record["config"]["left_out"] == [] and record["config"]["resampled"] == []


def test_other_rates_are_resampled_and_that_is_said(tmp_path, mixtures, capsys):
    names = ["p232_001.wav", "p232_005.wav", "sub/p257_010.wav"]
    clean, noisy = ([getattr(m, kind) for m in mixtures] for kind in ("speech", "mixture"))
    up = lambda signals: [audio.resample(x, 16_000, 48_000) for x in signals]
    write(tmp_path / "clean", names, up(clean), 48_000)
    write(tmp_path / "noisy", names, up(noisy), 48_000)
    # Another program rounded up, and wrote FLAC.
    longer = [np.append(x, np.float32(0)) for x in noisy]
    same = write(tmp_path / "same", [n.replace(".wav", ".flac") for n in names], longer)
    record = run(tmp_path, f"--outputs=same={same}", "--nolistening")
    theirs, ours = record["results"]
    assert ours["files"] == 3
    assert ours["si_sdr"] == pytest.approx(theirs["si_sdr"], abs=0.05)
    assert record["config"]["resampled"] == ["3 of clean from 48000 Hz", "3 of noisy from 48000 Hz"]
    assert "resampled to 16000 Hz: 3 of clean from 48000 Hz" in capsys.readouterr().err


def test_files_that_cannot_be_used_are_named_and_left_out_of_all_rows(dns, mixtures, capsys):
    signal = mixtures[0].mixture
    write(dns / "noisy", ["x_fileid_20.wav", "x_fileid_21.wav", "x_fileid_22.wav"], [signal] * 3)
    write(dns / "clean", ["fileid_21.wav", "fileid_21.flac"], [signal] * 2)
    write(dns / "clean", ["fileid_22.wav"], [signal[:-1]])
    write(dns / "other", ["fileid_21.wav", "fileid_22.wav"], [signal] * 2)
    (dns / "other" / "book_2_snr5_tl-21_fileid_2.wav").write_text("no sound")
    record = run(dns, f"--outputs=half={dns / 'other'}", "--nolistening")
    assert [row["files"] for row in record["results"]] == [2, 2]
    reasons = dict(record["config"]["left_out"])
    assert reasons.keys() == {"fileid_20", "fileid_21", "fileid_22", "fileid_2"}
    assert reasons["fileid_20"] == "no such file in clean, half"
    assert reasons["fileid_21"] == "several such files in clean"
    assert reasons["fileid_22"] == "clean has 15999 samples at 16000 Hz, noisy has 16000"
    assert "fileid_2.wav" in reasons["fileid_2"] and "audio" in reasons["fileid_2"]
    said = capsys.readouterr().err
    assert all(f"{key}: {reason}" in said for key, reason in reasons.items())


def test_a_measure_without_a_value_leaves_the_file_out(dns, monkeypatch):
    def stoi(speech, estimate):
        if len(speech) == 15_000:
            warnings.warn("not enough frames", RuntimeWarning, stacklevel=1)
        return 0.5

    monkeypatch.setattr(denoisers, "measures", lambda: {"stoi": stoi})
    record = run(dns)
    assert record["config"]["left_out"] == [["fileid_2", "noisy: not enough frames"]]
    (noisy,) = record["results"]
    assert (noisy["stoi"], noisy["files"]) == (0.5, 2)


def test_tools_run_beside_models(dns, monkeypatch):
    tool = denoisers.Tool("math", lambda module, mixture: mixture[:-1] / 2)
    monkeypatch.setitem(denoisers.TOOLS, "half", tool)
    record = run(dns, "--tools=half", "--nolistening")
    noisy, half = record["results"]
    assert half["method"] == "half" and half["files"] == 3
    assert half["si_sdr"] == pytest.approx(noisy["si_sdr"], abs=0.01)  # but for the last sample
    assert record["config"]["tools"] == ["half"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs=other"], "--outputs=other: give NAME=DIR"),
        (["--outputs=noisy=other"], "another row is named noisy"),
        (["--outputs=small=other", "--model=small"], "another row is named small"),
        (["--outputs=a=nowhere"], "nowhere: no such folder"),
        (["--outputs=a=empty"], "no audio file is in all of these"),
        (["--model=huge"], "huge"),
    ],
)
def test_bad_requests_are_named(arguments, message, dns, monkeypatch):
    monkeypatch.chdir(dns)
    (dns / "empty").mkdir()
    given = ["--clean=clean", "--noisy=noisy", "--output=o.json", "--nolistening"]
    assert message in launching.run("pairs", *given, *arguments)
    assert not (dns / "o.json").exists()


def test_nothing_to_score_is_said(tmp_path, mixtures):
    for kind in ("clean", "noisy"):
        write(tmp_path / kind, ["a.wav"], [np.zeros_like(mixtures[0].speech)])
    given = [f"--{kind}={tmp_path / kind}" for kind in ("clean", "noisy")]
    said = launching.run("pairs", *given, f"--output={tmp_path}/o.json", "--nolistening")
    assert "none of 1 pairs can be scored; the first: a: noisy: " in said and "silent" in said


def test_published_rows_stand_beside_the_whole_test_set_alone():
    keys = [f"{speaker}_{n:03}" for speaker in ("p232", "p257") for n in range(412)]
    assert len(pairs.published(keys)) == 4
    assert all(row["source"] and row["pesq"] < 4.65 for row in pairs.published(keys))
    assert pairs.published(keys[1:]) == pairs.published([*keys[1:], "p226_001"]) == []

"""Audio files that are cut short, damaged, of no length or too large: all of it, or none."""

import functools
import json
import os
import re
import struct
import subprocess
import sys
import time

import launching
import numpy as np
import pytest
import soundfile
from small_models import random_model

from blsh_jax import models
from blsh_jax.corpora import audio, containers
from blsh_jax.denoising import folders, recordings
from experiments import damaged_audio, fuzz
from experiments.damaged_audio import declares_length, formats, whole_audio

RATE = 16_000
NOISE = damaged_audio.noise(np.random.default_rng(0), 2, 4800)
LONG = damaged_audio.noise(np.random.default_rng(1), 1, 80_000)
ID3 = b"ID3\x03\0\0\0\0\0\x10" + bytes(16)


def read(path, content):
    """All samples of a file of these bytes, (C, n)."""
    path.write_bytes(content)
    return audio.read(path, mono=False)[0]


def refusal(path, content):
    """What is said of a file of these bytes."""
    with pytest.raises(audio.AudioError, match=re.escape(str(path))) as caught:
        read(path, content)
    return str(caught.value)


def cuts(size, count):
    """Where to cut a file: everywhere about, and closely at its start and end."""
    near = [1, 2, 3, 4, 9, 20, 60, 128]
    places = {*np.linspace(1, size - 1, count).astype(int), *near, *(size - n for n in near)}
    return sorted(place for place in places if 0 < place < size)


def with_bytes(content, place, new):
    """The file with other bytes at a place."""
    return content[:place] + new + content[place + len(new) :]


@functools.cache
def made(kind, subtype):
    """A file of two channels or, where the format has but one, of one."""
    try:
        return whole_audio(kind, subtype, NOISE, RATE)
    except soundfile.LibsndfileError:
        return whole_audio(kind, subtype, NOISE[:1], RATE)


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in formats()}))
def test_a_cut_file_of_every_format_is_refused_or_has_all_samples(kind, tmp_path):
    for subtype in (subtype for found, subtype in formats() if found == kind):
        content = made(kind, subtype)
        whole = read(tmp_path / "x", content)
        assert NOISE.shape[1] <= whole.shape[1] < NOISE.shape[1] + 512
        if not declares_length(kind):
            continue
        for place in cuts(len(content), 12):
            try:
                cut = read(tmp_path / "x", content[:place])
            except audio.AudioError as error:
                assert str(tmp_path / "x") in str(error)
            else:  # padding or the mark of an end is what was cut off
                assert len(content) - place <= 4, (subtype, place, len(content))
                assert cut.shape == whole.shape


def test_formats_without_a_length_are_those_that_are_named():
    shown = {kind for kind, _ in formats()}
    assert shown >= {"PAF", "PVF", "IRCAM", "XI"} == {k for k in shown if not declares_length(k)}
    assert len(formats()) > 100


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_pages_are_checked_one_by_one(subtype, tmp_path):
    content = whole_audio("OGG", subtype, LONG, RATE)
    path, whole = tmp_path / "x.ogg", read(tmp_path / "x.ogg", content)
    assert whole.shape == LONG.shape
    for place in cuts(len(content), 25):
        assert "cut short" in refusal(path, content[:place]) or place < 200
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    assert len(pages) > 3
    assert "before the last page" in refusal(path, content[: pages[-1]])
    middle = pages[-2]
    flipped = with_bytes(content, middle + 100, bytes([content[middle + 100] ^ 4]))
    assert f"page at byte {middle} is damaged" in refusal(path, flipped)
    assert "pages are missing" in refusal(path, content[:middle] + content[pages[-1] :])
    assert f"no page at byte {middle}" in refusal(path, content[:middle] + b"?" + content[middle:])
    np.testing.assert_array_equal(read(path, content + b"TAG" + bytes(125)), whole)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_comes_out_to_its_last_stream(subtype, tmp_path):
    signals = (LONG, LONG[:, :9001], -LONG[:, 5000:])
    links = [whole_audio("OGG", subtype, signal, RATE) for signal in signals]
    path = tmp_path / "x.ogg"
    apart = [read(path, link) for link in links]
    chained = b"".join(links)
    np.testing.assert_array_equal(read(path, chained), np.concatenate(apart, axis=1))
    assert "cut short" in refusal(path, chained[:-50])
    after = len(links[0]) + len(links[1]) // 2
    assert "is damaged" in refusal(path, with_bytes(chained, after, b"????"))
    path.write_bytes(chained[: after - 60] + b"?" * 300)
    with audio.reading(path, partial=True) as file:  # as far as it goes: two streams
        heard = sum(block.shape[1] for block in file.blocks(5000))
    assert len(LONG[0]) <= heard < len(LONG[0]) + 9001 and file.missing
    for samples, rate in ((NOISE, RATE), (LONG, 8000)):
        other = links[0] + whole_audio("OGG", subtype, samples, rate)
        assert "holds streams one after another that differ in rate or" in refusal(path, other)


def test_mp3_frames_are_counted(tmp_path):
    path = tmp_path / "x.mp3"
    content = whole_audio("MP3", "MPEG_LAYER_III", LONG, RATE)
    whole, first = read(path, content), containers._mpeg_frame(content).size
    assert whole.shape == LONG.shape
    for place in cuts(len(content), 25):
        assert "cut short" in refusal(path, content[:place]) or place < 200
    last = max(place for place in range(len(content) - 2) if content.startswith(b"\xff\xf3", place))
    assert re.search(r"\(\d+ MPEG frames of \d+\)", refusal(path, content[:last]))
    assert "no frame of the same kind" in refusal(path, content[first:] + b"junk")
    for harmless in (b"TAG" + bytes(125), bytes(500), b"APETAGEX" + bytes(50)):
        np.testing.assert_array_equal(read(path, content + harmless), whole)
        assert read(path, content[first:] + harmless).shape[1] >= LONG.shape[1]
    np.testing.assert_array_equal(read(path, ID3 + content), whole)
    joined = read(path, content + ID3 + content)
    assert joined.shape[1] >= 2 * LONG.shape[1]
    np.testing.assert_array_equal(joined[:, : whole.shape[1]], whole)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44_100, RATE])
def test_mp3_of_varying_bit_rate_is_read_whole_without_a_count(channels, rate, tmp_path):
    quiet_and_loud = np.repeat(LONG * np.linspace(0, 1, LONG.shape[1]), channels, axis=0)
    path = tmp_path / "x.mp3"
    soundfile.write(
        path, quiet_and_loud.T, rate, bitrate_mode="VARIABLE", compression_level=0.5, format="MP3"
    )
    content = path.read_bytes()
    whole, first = read(path, content), containers._mpeg_frame(content).size
    without = read(path, content[first:])
    assert whole.shape[1] <= without.shape[1] < whole.shape[1] + 2 * 1152
    assert any(
        np.allclose(without[:, lag : lag + 40_000], whole[:, :40_000], atol=1e-4)
        for lag in range(without.shape[1] - whole.shape[1] + 1)
    )


def _size_field(content, kind):
    """Where the bytes of audio are counted, in how many bytes, in which order."""
    places = {
        "WAV": (content.find(b"data") + 4, "<I"),
        "WAVEX": (content.find(b"data") + 4, "<I"),
        "AU": (8, "<I" if content.startswith(b"dns.") else ">I"),
        "AIFF": (content.find(b"SSND") + 4, ">I"),
        "RF64": (content.find(b"ds64") + 16, "<Q"),
        "W64": (content.find(b"data") + 16, "<Q"),
        "CAF": (content.find(b"data") + 4, ">Q"),
    }
    return places[kind]


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "AU", "AIFF", "RF64", "W64", "CAF"])
def test_lengths_that_recorders_and_pipes_leave_open_are_those_of_the_file(kind, tmp_path):
    content = made(kind, "PCM_16")
    whole = read(tmp_path / "x", content)
    place, field = _size_field(content, kind)
    wide = field[1] == "Q"
    opened = (0, 2**64 - 1, 2**63 - 1) if wide else (0, 2**32 - 1, 2**31 - 1, 2**31, 0x7FFFF000)
    for size in opened:
        left_open = with_bytes(content, place, struct.pack(field, size))
        if kind in ("WAV", "WAVEX"):
            if size:  # not all of them say so in both places
                np.testing.assert_array_equal(read(tmp_path / "x", left_open), whole)
            outer = struct.pack("<I", min(size + place - 4, 2**32 - 1))
            left_open = with_bytes(left_open, 4, outer)
        np.testing.assert_array_equal(read(tmp_path / "x", left_open), whole)
        with audio.reading(tmp_path / "x") as file:
            assert (file.kind, file.num_samples, file.missing) == (kind, whole.shape[1], "")


def test_an_open_length_of_more_than_4_gib_is_read(tmp_path):
    header = made("WAV", "PCM_16")[:44]
    for size, length in ((2**32 - 1, 5 * 2**30), (2**31 - 1, 3 * 2**30)):
        left_open = with_bytes(with_bytes(header, 40, struct.pack("<I", size)), 4, b"\xff" * 4)
        (tmp_path / "x.wav").write_bytes(left_open)
        with (tmp_path / "x.wav").open("r+b") as file:
            file.truncate(length)  # a hole, which takes no room
        with audio.reading(tmp_path / "x.wav") as file:
            assert file.num_samples == (length - 44) // 4


def test_chunks_and_tags_after_the_audio_are_not_missed(tmp_path):
    content, aiff = made("WAV", "PCM_16"), made("AIFF", "PCM_16")
    whole = read(tmp_path / "x", content)
    tagged = content + b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0a recorder  \0\0"
    tagged = with_bytes(tagged, 4, struct.pack("<I", len(tagged) - 8))
    for after in (tagged, tagged[:-9], content + ID3, content + bytes(512), ID3 + content):
        np.testing.assert_array_equal(read(tmp_path / "x", after), whole)
    np.testing.assert_array_equal(read(tmp_path / "x", aiff + b"APPL\0\0\1\0cut"), whole)
    empty = with_bytes(tagged[:40] + bytes(4) + tagged[len(content) :], 4, struct.pack("<I", 70))
    assert "no samples" in refusal(tmp_path / "x", empty)


def test_a_part_is_denoised_where_that_is_asked_for_and_named(tmp_path):
    used = random_model()
    for name, kind, subtype in (
        ("x.wav", "WAV", "PCM_16"),
        ("x.flac", "FLAC", "PCM_16"),
        ("x.ogg", "OGG", "VORBIS"),
        ("x.mp3", "MP3", "MPEG_LAYER_III"),
    ):
        source, target = tmp_path / name, tmp_path / "out" / name
        content = whole_audio(kind, subtype, LONG, RATE)
        source.write_bytes(content[: len(content) // 2])
        with pytest.raises(audio.AudioError, match="cut short"):
            recordings.denoise_file(source, target, used)
        assert not target.exists()
        with pytest.warns(UserWarning, match=rf"{name}: cut short .* as far as it goes"):
            seconds = recordings.denoise_file(source, target, used, partial=True)
        assert 0.3 < seconds / (LONG.shape[1] / RATE) < 0.6
        assert soundfile.info(target).frames == pytest.approx(seconds * RATE)
        source.write_bytes(content)
        recordings.denoise_file(source, target, used, partial=True)  # a warning would be an error


def test_a_folder_run_names_what_was_cut_short(tmp_path):
    content = made("WAV", "PCM_16")
    for name, kept in (("whole.wav", len(content)), ("cut.wav", len(content) // 2)):
        (tmp_path / name).write_bytes(content[:kept])
    used, found = random_model(), folders.find_pairs([tmp_path], tmp_path.with_name("out"))
    strict = folders.denoise_files(found, used, folders.Settings())
    assert strict.count("denoised") == 1 and "cut.wav: cut short" in strict.messages[0]
    summary = folders.denoise_files(found, used, folders.Settings(partial=True))
    assert summary.succeeded
    assert re.search(r"cut\.wav: .*9622 bytes of 19244", summary.messages[0])
    assert "1 denoised (1 cut short or damaged), 1 kept (already there; give" in str(summary)


@pytest.mark.parametrize(
    ("kind", "rate", "channels", "message"),
    [
        ("WAV", RATE, 1024, "1024 channels; up to 256"),
        ("WAV", RATE, 257, "257 channels"),
        ("WAV", 1, 1, "its rate is 1 Hz; rates from 1000 to 768000 Hz"),
        ("AIFF", 1, 1, "its rate is 1 Hz"),
        ("WAV", 999, 1, "its rate is 999 Hz"),
        ("WAV", 768_001, 1, "its rate is 768001 Hz"),
    ],
)
def test_rates_and_channels_beyond_the_limits_are_refused(kind, rate, channels, message, tmp_path):
    content = whole_audio(kind, "PCM_16", np.zeros((channels, 10)), rate)
    assert message in refusal(tmp_path / "x", content)
    with pytest.raises(ValueError, match=r"sample_rate is|channels: give"):
        recordings.Denoiser(random_model(), rate, channels)


_WATCHED = """
import json, resource, sys, time
from blsh_jax import models
from blsh_jax.corpora import audio
from blsh_jax.denoising import folders, recordings
used, said = models.load(sys.argv[1]), {}
def measured(source, target):
    start = time.process_time()
    try:
        recordings.denoise_file(source, target, used)
        outcome = "done"
    except audio.AudioError as error:
        outcome = str(error)
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return outcome, mb, time.process_time() - start
for name in sys.argv[2:]:
    said[name] = measured(name, name + ".out.wav")
print(json.dumps(said))
"""


def test_memory_and_time_follow_the_bytes_that_are_read(tmp_path):
    """Of files of a few kB, one after another in a process of their own; the first is ordinary."""
    cases = {
        "plain": ("WAV", RATE, 2, 4800, "done"),
        "1024 channels": ("WAV", RATE, 1024, 10, "1024 channels"),
        "1 Hz": ("WAV", 1, 1, 4000, "rate is 1 Hz"),
        "1 Hz AIFF": ("AIFF", 1, 1, 24_000, "rate is 1 Hz"),
        "8 Hz": ("WAV", 8, 1, 24_000, "rate is 8 Hz"),
        "1 kHz": ("WAV", 1000, 1, 4000, "done"),
        "768 kHz": ("WAV", 768_000, 1, 10_000, "done"),
        "256 channels": ("WAV", RATE, 256, 40, "done"),
    }
    for name, (kind, rate, channels, length, _) in cases.items():
        samples = damaged_audio.noise(np.random.default_rng(0), channels, length)
        (tmp_path / name).write_bytes(whole_audio(kind, "PCM_16", samples, rate))
    models.save(random_model(), tmp_path / "model.npz")
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, tmp_path / "model.npz", *(tmp_path / n for n in cases)],
        capture_output=True,
        check=True,
    )
    said = {name.rpartition("/")[2]: value for name, value in json.loads(done.stdout).items()}
    for name, (*_, expected) in cases.items():
        outcome, mb, seconds = said[name]
        assert expected in outcome
        assert mb < said["plain"][1] + 300, (name, said)
        assert seconds < (60 if expected == "done" else 1), (name, said)


@pytest.mark.parametrize("scale", [2.0**-33, 2.0**-20, 2.0**33])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_a_gain_of_the_input_is_a_gain_of_the_output(scale, rate, tmp_path):
    """From a loudest sample of 1e-10 to 1e10; in arrays, pieces and files."""
    used = random_model("magnitude", 1, 24, 0.5, pre_roll_frames=20)
    signal = NOISE.astype(np.float32)
    signal /= np.abs(signal).max()
    signal[:, 2000:2300] *= 1e-4
    plain = recordings.denoise(signal, rate, used)
    scaled = recordings.denoise(signal * np.float32(scale), rate, used)
    np.testing.assert_allclose(scaled / scale, plain, atol=1e-6)
    denoiser = recordings.Denoiser(used, rate, 2)
    pieces = [denoiser.feed(signal * np.float32(scale)), denoiser.flush()]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1) / scale, plain, atol=1e-6)
    audio.write(tmp_path / "x.wav", signal * np.float32(scale), rate, "FLOAT")
    recordings.denoise_file(tmp_path / "x.wav", tmp_path / "y.wav", used)
    out, _ = audio.read(tmp_path / "y.wav", mono=False)
    np.testing.assert_allclose(out / scale, plain, atol=1e-6)


def test_what_is_too_loud_is_refused_and_what_nobody_hears_is_silence(tmp_path):
    used = random_model()
    for loud in (1.1 * audio.LOUDEST, 1e19, 1e300):
        signal = NOISE.copy()
        signal[1, -1] = loud
        with pytest.raises(ValueError, match="more than 1e\\+10"):
            recordings.denoise(signal, RATE, used)
        (tmp_path / "x.wav").write_bytes(whole_audio("WAV", "DOUBLE", signal, RATE))
        with pytest.raises(audio.AudioError, match=r"x\.wav.*beyond 1e\+10"):
            recordings.denoise_file(tmp_path / "x.wav", tmp_path / "y.wav", used)
        assert not (tmp_path / "y.wav").exists()
    assert not recordings.denoise(1e-20 * NOISE, RATE, used).any()
    np.testing.assert_array_equal(
        recordings.denoise(1e-20 * NOISE, RATE, used, dry_wet=0), 1e-20 * NOISE
    )


def test_damaged_files_and_models_are_whole_or_refused_or_named(tmp_path):
    """A short part of ``experiments.fuzz``."""
    assert launching.run("fuzz", "--cases=60", f"--output={tmp_path / 'fuzz.json'}") is None
    record = json.loads((tmp_path / "fuzz.json").read_text())
    assert record["bad"] == []
    audio_row = record["results"][0]
    assert (audio_row["kind"], audio_row["cases"]) == ("audio", 60)
    assert min(audio_row[outcome] for outcome in ("whole", "partial", "refused")) > 0


def _crash(rng, folder):
    os.abort()


def _hang(rng, folder):
    time.sleep(60)


def _fill_memory(rng, folder):
    return "whole" * int(np.ones(30_000_000).min())


def _raise(rng, folder):
    raise IndexError("not caught")


def _lose_samples(rng, folder):
    assert not folder.name, "a sample is lost"


@pytest.mark.slow
def test_cases_that_fail_are_told_from_others(monkeypatch):
    monkeypatch.setattr(fuzz, "_LIMIT_SECONDS", 3.0)
    monkeypatch.setattr(fuzz, "_LIMIT_MB", 100.0)
    cases = {
        "crash": _crash,
        "hang": _hang,
        "memory": _fill_memory,
        "uncaught": _raise,
        "damaged": _lose_samples,
    }
    outcomes = list(fuzz.fuzz(dict.fromkeys(cases, 1), 0, cases, os.getpid))
    assert [outcome.outcome for outcome in outcomes] == list(cases)
    assert all(outcome.bad for outcome in outcomes)
    assert "IndexError: not caught" in outcomes[3].detail and "lost" in outcomes[4].detail
    assert [row[kind] for row, kind in zip(fuzz.rows(outcomes), cases, strict=True)] == [1] * 5

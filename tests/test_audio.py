"""Audio files: every failure is named, nothing wraps, lengths and alignment are exact."""

import os

import numpy as np
import pytest
import soundfile

from blsh_jax.corpora import audio

RATE = 16_000


def _tone(seconds=0.5, hertz=440.0, rate=RATE):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def _sphere(path, samples, coding="pcm", declared=None):
    """A NIST SPHERE file, header written field by field."""
    header = (
        f"NIST_1A\n   1024\nsample_count -i {declared or len(samples)}\nsample_n_bytes -i 2\n"
        f"channel_count -i 1\nsample_byte_format -s2 01\nsample_rate -i {RATE}\n"
        f"sample_coding -s{len(coding)} {coding}\nend_head\n"
    )
    path.write_bytes(header.encode().ljust(1024) + samples.astype("<i2").tobytes())


@pytest.mark.parametrize("suffix", [".flac", ".WAV"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / "made" / "below" / (os.fsdecode(b"caf\xe9") + suffix)  # in no encoding
    audio.write(path, _tone(), RATE, "PCM_24")
    signal, rate = audio.read(path)
    assert rate == RATE and signal.dtype == np.float32
    np.testing.assert_allclose(signal, _tone(), atol=2**-22)
    assert soundfile.info(os.fsencode(path)).subtype == "PCM_24"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_channels_are_averaged_or_kept_and_floats_beyond_one_too(tmp_path):
    stereo = 4 * np.stack([_tone(), np.zeros_like(_tone())])
    audio.write(tmp_path / "s.wav", stereo, RATE, "FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "s.wav")[0], stereo[0] / 2, atol=1e-7)
    np.testing.assert_array_equal(audio.read(tmp_path / "s.wav", mono=False)[0], stereo)


def test_sphere_and_riff_are_told_apart_by_header(tmp_path):
    samples = np.arange(-2000, 2000, dtype=np.int16)
    _sphere(tmp_path / "a.WAV", samples)
    soundfile.write(tmp_path / "b.WAV", samples, RATE)
    for name in ("a.WAV", "b.WAV"):
        signal, rate = audio.read(tmp_path / name)
        assert rate == RATE
        np.testing.assert_array_equal(signal, samples.astype(np.float32) / 32768)


def test_read_resamples_with_the_right_length(tmp_path):
    audio.write(tmp_path / "x.wav", _tone(1.0, rate=44_100), 44_100, "FLOAT")
    signal, rate = audio.read(tmp_path / "x.wav", 16_000)
    assert rate == 16_000 and signal.shape == (16_000,)
    np.testing.assert_allclose(signal[500:-500], _tone(1.0)[500:-500], atol=1e-3)


@pytest.mark.parametrize(("there", "length"), [(44_100, 4_413), (8_000, 8_001), (48_000, 4_817)])
def test_resample_there_and_back_is_aligned_to_the_sample(there, length):
    rng = np.random.default_rng(0)
    low = audio.resample(rng.standard_normal(150), 2_000, there)  # band-limited to 1 kHz
    signal = np.pad(low, (100, length))[:length]
    back = audio.resample(audio.resample(signal, there, RATE), RATE, there, num_samples=length)
    assert back.shape == (length,)
    lag = np.argmax(np.correlate(back, signal, "full")) - (length - 1)
    assert lag == 0


def test_resample_works_along_the_last_axis():
    rows = np.stack([[_tone(), -_tone()], [2 * _tone(), 0 * _tone()]])
    result = audio.resample(rows, RATE, 22_050)
    assert result.shape == (2, 2, round(0.5 * 22_050)) and result.dtype == np.float32
    one = audio.resample(_tone(), RATE, 22_050)
    np.testing.assert_allclose(result[1, 0], 2 * one, atol=1e-6)
    np.testing.assert_allclose(result[0, 1], -one, atol=1e-6)


def test_resample_gives_the_length_and_type_wanted_and_refuses_bad_rates():
    for num_samples in (1, 7999, 9000):
        assert audio.resample(_tone(), RATE, 8_000, num_samples).shape == (num_samples,)
        same = audio.resample(_tone(), RATE, RATE, num_samples)
        kept = min(num_samples, len(_tone()))
        np.testing.assert_array_equal(same[:kept], _tone()[:kept])
        assert same.shape == (num_samples,) and not same[kept:].any()
    assert audio.resample(_tone().astype(np.float64), RATE, 8_000).dtype == np.float64
    with pytest.raises(ValueError, match="to_rate 0"):
        audio.resample(_tone(), RATE, 0)


def test_unusable_files_are_named(tmp_path):
    audio.write(tmp_path / "whole.wav", _tone(), RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:5000])
    audio.write(tmp_path / "whole.flac", _tone() + 0.01, RATE)
    flac = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    _sphere(tmp_path / "cut_sphere.wav", np.ones(100), declared=4000)
    _sphere(tmp_path / "packed.wav", np.ones(100), coding="pcm,embedded-shorten-v2.00")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.float32([0, np.nan, 0]), RATE, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("not audio at all")
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    messages = {
        "missing.wav": "no such file",
        "folder.wav": "is a folder",
        "pipe.wav": "no regular file; send it to standard input",
        "cut.wav": "cut short",
        "cut.flac": "cut short",
        "cut_sphere.wav": "cut short",
        "packed.wav": "shorten",
        "empty.wav": "empty",
        "nothing.wav": "no samples",
        "nan.wav": "NaN",
        "text.wav": "not readable as audio",
    }
    for name, message in messages.items():
        with pytest.raises(audio.AudioError, match=f"{name}.*({message})"):
            audio.read(tmp_path / name)


def test_files_of_unknown_length_are_read(tmp_path):
    """Programs that write to a pipe leave the length open."""
    for name in ("x.wav", "x.flac"):
        audio.write(tmp_path / name, _tone(), RATE)
    riff = bytearray((tmp_path / "x.wav").read_bytes())
    riff[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "x.wav").write_bytes(riff)
    assert audio.read(tmp_path / "x.wav")[0].shape == _tone().shape
    path = tmp_path / "x.flac"
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the low 36 bits from here count the samples
    data[22:26] = bytes(4)
    expected, _ = audio.read(path)
    path.write_bytes(data)
    np.testing.assert_array_equal(audio.read(path)[0], expected)
    with audio.reading(path) as file:
        assert file.num_samples == 0
    assert audio.seconds(path) == 0.0
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(audio.AudioError, match=r"x\.flac: cut short .*\(0 samples, then: "):
        audio.read(path)


@pytest.mark.parametrize(
    ("name", "signal", "subtype", "message"),
    [
        ("x.doc", np.zeros(4, np.float32), None, "no audio format"),
        ("x.wav", np.zeros(4, np.int16), None, "int16"),
        ("x.wav", np.float32([0, np.inf]), None, "infinite"),
        ("x.wav", np.zeros((2, 2, 2), np.float32), None, "channels, n"),
        ("x.flac", np.zeros(4, np.float32), "DOUBLE", "not written"),
        ("x.flac", np.zeros((9, 4), np.float32), None, "not written"),
    ],
)
def test_a_refused_write_leaves_what_was_there(tmp_path, name, signal, subtype, message):
    with pytest.raises(audio.AudioError, match=message):
        audio.write(tmp_path / name, signal, RATE, subtype)
    assert not list(tmp_path.iterdir())
    (tmp_path / name).write_text("old")
    with pytest.raises(audio.AudioError, match=message):
        audio.write(tmp_path / name, signal, RATE, subtype)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_find_audio_is_recursive_sorted_and_passes_over_hidden_names(tmp_path):
    for name in ("b.WAV", "a/z.Flac", "a/deep/er/c.ogg", ".hidden.wav", ".git/x.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in audio.find_audio(tmp_path)]
    assert found == ["a/deep/er/c.ogg", "a/z.Flac", "b.WAV"]
    with pytest.raises(audio.AudioError, match="no such folder"):
        audio.find_audio(tmp_path / "missing")


def test_blocks_side_by_side_are_the_file(tmp_path):
    stereo = np.stack([_tone(), -_tone()])
    with audio.writing(tmp_path / "x.flac", RATE, 2) as file:
        for start in range(0, stereo.shape[1], 700):
            file.write(stereo[:, start : start + 700])
    for size in (999, 100_000):
        with audio.reading(tmp_path / "x.flac") as file:
            assert (file.sample_rate, file.channels, file.num_samples) == (RATE, *stereo.shape)
            blocks = list(file.blocks(size))
        assert {block.shape[1] for block in blocks[:-1]} <= {size}
        np.testing.assert_allclose(np.concatenate(blocks, axis=1), stereo, atol=2**-16)


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [
        ("x.wav", "PCM_16", 16),
        ("x.flac", "PCM_24", 24),
        ("x.aiff", "PCM_S8", 8),
        ("x.wav", "PCM_U8", 8),
        ("x.wav", "PCM_32", 32),
    ],
)
def test_integers_are_rounded_to_the_nearest_and_clip_without_wrapping(
    tmp_path, name, subtype, bits
):
    most = 2.0 ** (bits - 1)
    steps = np.array([[0.0, 0.4, -0.4, 0.6, -0.6, 2.49, -3.49, most + 5, 100 * most, -7 * most]])
    audio.write(tmp_path / name, steps / most, RATE, subtype)
    written = soundfile.read(tmp_path / name)[0] * most
    np.testing.assert_array_equal(written, [0, 0, 0, 1, -1, 2, -3, most - 1, most - 1, -most])


def test_a_long_signal_is_written_as_vorbis(tmp_path):
    audio.write(tmp_path / "x.ogg", np.zeros(3_000_000, np.float32), RATE)
    assert soundfile.info(tmp_path / "x.ogg").frames == 3_000_000


@pytest.mark.parametrize("rates", [(44_100, 16_000), (16_000, 48_000), (16_000, 16_000)])
def test_resampling_in_pieces_is_resampling_the_whole(rates):
    noise = np.random.default_rng(0).standard_normal((2, 10_007)).astype(np.float32)
    resampler = audio.Resampler(*rates, 2)
    pieces = [resampler.feed(piece) for piece in np.split(noise, [1, 1, 5000, 9999], axis=1)]
    pieces.append(resampler.feed(np.zeros((2, 0), np.float32), last=True))
    joined = np.concatenate(pieces, axis=1)
    whole = audio.resample(noise, *rates, num_samples=joined.shape[1])
    np.testing.assert_allclose(joined, whole, atol=1e-6)

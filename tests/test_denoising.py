"""Denoising arrays and files: any rate, channels and length; no seams; nothing half-written."""

import dataclasses
import functools
import os
import resource
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from small_models import random_model

from blsh_jax.corpora import audio
from blsh_jax.denoising import pipeline
from blsh_jax.denoising import recordings as denoising
from experiments.damaged_audio import whole_audio

Denoiser = denoising.Denoiser


@pytest.fixture(scope="module")
def used():
    return random_model()


@pytest.fixture(scope="module", autouse=True)
def short_blocks():
    """Blocks of half a second, as the signals are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising, "Denoiser", functools.partial(Denoiser, hops=32))
        yield


def with_masks(used, bit):
    """The model with masks that pass everything, or nothing."""
    filled = jnp.full_like(used.dictionary.masks, 0xFFFFFFFF if bit else 0)
    return dataclasses.replace(used, dictionary=dataclasses.replace(used.dictionary, masks=filled))


def noise(*shape, seed=0, dtype=np.float32):
    return (0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def in_pieces(denoiser, noisy, sizes):
    pieces, start = [], 0
    for size in sizes:
        pieces.append(denoiser.feed(noisy[:, start : start + size]))
        start += size
    return np.concatenate([*pieces, denoiser.feed(noisy[:, start:]), denoiser.flush()], axis=-1)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_pieces_leave_no_seams_at_any_rate(used, rate):
    noisy = noise(2, 10_011)
    whole = denoising.denoise(noisy, rate, used)
    for hops, sizes in ((32, (1, 999, 7000)), (1, (5000, 0, 13))):
        denoiser = Denoiser(used, rate, 2, hops=hops)
        out = in_pieces(denoiser, noisy, sizes)
        assert out.shape == noisy.shape
        np.testing.assert_allclose(out, whole, atol=2e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_flushed_denoiser_is_as_new_and_a_refused_piece_changes_nothing(used, rate):
    denoiser = Denoiser(used, rate, 2, hops=4)
    assert denoiser.flush().shape == (2, 0)
    for seed in (0, 1):
        noisy = noise(2, 6001, seed=seed)
        expected = in_pieces(Denoiser(used, rate, 2, hops=4), noisy, (3000,))
        out = [denoiser.feed(noisy[:, :3000])]
        for bad in (noisy[:1], noisy[0], np.full((2, 9), np.nan), np.full((2, 9), 1e11)):
            with pytest.raises(ValueError, match="samples"):
                denoiser.feed(bad)
        with pytest.raises(ValueError, match="samples is int16"):
            denoiser.feed(np.zeros((2, 9), np.int16))
        out += [denoiser.feed(noisy[:, 3000:]), denoiser.flush()]
        np.testing.assert_array_equal(np.concatenate(out, axis=-1), expected)
        assert denoiser.flush().shape == (2, 0)
    denoiser.feed(noisy)  # a recording that is cut off ends with the flush
    assert denoiser.flush().shape[1] <= 6001
    np.testing.assert_array_equal(in_pieces(denoiser, noisy, (3000,)), expected)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_recording_that_was_stopped_in_the_middle_of_a_call_is_broken_off(
    used, rate, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    denoiser = Denoiser(used, rate, 1, hops=4)
    with monkeypatch.context() as patch:
        patch.setattr(denoiser._stream, "feed_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            denoiser.feed(noise(1, 5000))
    for call in (denoiser.flush, lambda: denoiser.feed(noise(1, 5))):
        with pytest.raises(RuntimeError, match="stopped in the middle of this signal"):
            call()


@pytest.mark.parametrize(("rate", "length"), [(16000, 10_011), (44100, 2)])
def test_a_pre_roll_leaves_no_seams(rate, length):
    used = random_model("magnitude", 1, 24, 0.5, pre_roll_frames=20)
    noisy = noise(2, length)
    whole = denoising.denoise(noisy, rate, used)
    denoiser = Denoiser(used, rate, 2, hops=3)
    out = in_pieces(denoiser, noisy, [length // 3, 0, length // 2])
    np.testing.assert_allclose(out, whole, atol=2e-6)
    if rate == 16000:
        traced = jax.jit(lambda signal: denoising.denoise(signal, rate, used))(noisy)
        stft, frames = used.separation.stft, used.separation.features.pre_roll_frames
        batch = pipeline.separate(noisy, used.mask_function, stft, frames).speech
        for same in (whole, traced):
            np.testing.assert_allclose(same, batch, atol=1e-6)


@pytest.mark.parametrize(("rate", "shape"), [(8000, (1,)), (16000, (2, 5001)), (44100, (2, 5001))])
def test_shape_kind_and_dtype_come_back_and_silence_stays_silent(used, rate, shape):
    noisy = noise(*shape, dtype=np.float64)
    for like in (noisy, noisy.astype(np.float32), jnp.asarray(noisy, jnp.float32)):
        speech = denoising.denoise(like, rate, used)
        assert type(speech) is type(like)
        assert (speech.shape, speech.dtype) == (like.shape, like.dtype)
        assert bool(np.isfinite(np.asarray(speech)).all())
    assert not denoising.denoise(np.zeros(shape, np.float32), rate, used).any()


class Tensor:
    """As of another library: NumPy asks for its values."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        if self._values is None:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use .cpu()")
        return self._values


def test_what_people_have_is_taken_and_gives_the_same_samples(used):
    noisy = noise(6001)
    expected = denoising.denoise(noisy, 16000, used)
    locked = noisy.copy()
    locked.flags.writeable = False
    taken = {
        "list": noisy.tolist(),
        "buffer": memoryview(noisy),
        "tensor": Tensor(noisy),
        "read-only": locked,
        "strided": np.repeat(noisy, 2)[::2],
        "backwards": noisy[::-1].copy()[::-1],
        "other bytes": noisy.astype(">f4"),
    }
    for name, given in taken.items():
        speech = denoising.denoise(given, 16000, used)
        assert isinstance(speech, np.ndarray), name
        np.testing.assert_allclose(speech, expected, atol=1e-7, err_msg=name)
    for rate in (np.float32(16000), np.int64(16000), jnp.float32(16000), jnp.asarray(16000)):
        np.testing.assert_array_equal(denoising.denoise(noisy, rate, used), expected)
        np.testing.assert_array_equal(
            in_pieces(Denoiser(used, rate, 1), noisy[None], (99,))[0], expected
        )
    columns = np.stack([noisy, -noisy], axis=1)  # as soundfile reads them
    np.testing.assert_allclose(
        denoising.denoise(columns.T, 16000, used), np.stack([expected, -expected]), atol=1e-6
    )
    short = jnp.asarray(noisy, jnp.bfloat16)
    for given in (short, np.asarray(short)):
        speech = denoising.denoise(given, 16000, used)
        assert speech.dtype == short.dtype and isinstance(speech, type(given))
        np.testing.assert_allclose(np.asarray(speech, np.float32), expected, atol=0.01)
    np.testing.assert_array_equal(
        Denoiser(used, 16000, 1).feed([noisy.tolist()]),
        Denoiser(used, 16000, 1).feed(noisy[None].astype(np.float64)),
    )
    with pytest.raises(ValueError, match=r"noisy is a Tensor, not a NumPy array.*use \.cpu"):
        denoising.denoise(Tensor(None), 16000, used)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_where_the_mask_passes_all_nothing_changes_in_any_band(used, rate):
    noisy = noise(30_001)
    passed = denoising.denoise(noisy, rate, with_masks(used, True))
    np.testing.assert_allclose(passed, noisy, atol=2e-6)
    limited = denoising.denoise(noisy, rate, used, max_attenuation_db=0)
    np.testing.assert_allclose(limited, noisy, atol=2e-6)
    low = audio.resample(noise(2000), 4000, 8000)  # below the model's rate: what resampling passes
    passed = denoising.denoise(low, 8000, with_masks(used, True))
    np.testing.assert_allclose(passed[100:-100], low[100:-100], atol=1e-3)


def test_the_attenuation_is_bounded_below_and_above_the_models_band(used):
    nothing = with_masks(used, False)
    noisy = noise(16_384)
    limited = denoising.denoise(noisy, 16000, nothing, max_attenuation_db=12)
    np.testing.assert_allclose(limited, noisy * 10 ** (-12 / 20), atol=1e-6)
    tone = np.sin(2 * np.pi * 15_000 / 48_000 * np.arange(48_000)).astype(np.float32)
    middle = slice(15_000, 33_000)
    assert np.abs(denoising.denoise(tone, 48_000, nothing)[middle]).max() < 1e-4
    floored = denoising.denoise(tone, 48_000, nothing, max_attenuation_db=20)
    np.testing.assert_allclose(floored[middle], 0.1 * tone[middle], atol=1e-4)


def test_strength_takes_more_or_less_away(used):
    noisy = noise(1, 9000)
    energies = [
        np.sum(np.square(denoising.denoise(noisy, 16000, used, strength=strength)))
        for strength in (0.5, 1, 2)
    ]
    assert energies[0] > energies[1] > energies[2] > 0
    whole = denoising.denoise(noisy, 16000, used, strength=0)
    np.testing.assert_allclose(whole, noisy, atol=1e-5)
    twice = used.with_strength(2).with_strength(0.5)
    assert twice.separation == used.separation
    named = used.with_strength("keep_speech")
    assert named.separation == used.with_strength("keep-speech").separation
    assert named.separation.strength < used.separation.strength
    for wrong in ("loud", None):
        with pytest.raises(ValueError, match="give keep-speech, balanced, silence, or a number"):
            denoising.denoise(noisy, 16000, used, strength=wrong)
    with pytest.raises(ValueError, match=r"give load_pretrained\('small'\)"):
        denoising.denoise(noisy, 16000, "small")


def test_tensors_of_torch_are_read_or_told_what_to_do(used):
    torch = pytest.importorskip("torch")
    noisy = torch.tensor(noise(1, 9000).astype(np.float32))
    found = denoising.denoise(noisy, 16000, used)
    np.testing.assert_array_equal(found, denoising.denoise(noisy.numpy(), 16000, used))
    with pytest.raises(ValueError, match=r"tensor\.detach\(\)\.numpy\(\) instead"):
        denoising.denoise(noisy.requires_grad_(), 16000, used)


def test_dry_wet_mixes_in_step(used):
    for rate in (16000, 44100):
        noisy = noise(2, 9000)
        dry, wet = (denoising.denoise(noisy, rate, used, dry_wet=part) for part in (0, 1))
        np.testing.assert_array_equal(dry, noisy)
        half = denoising.denoise(noisy, rate, used, dry_wet=0.5)
        np.testing.assert_allclose(half, (noisy + wet) / 2, atol=1e-6)


def test_inside_jit_and_vmap(used):
    noisy = noise(2, 8000)
    settings = {"dry_wet": 0.7, "max_attenuation_db": 15.0}
    expected = denoising.denoise(noisy, 16000, used, **settings)
    one = lambda signal: denoising.denoise(signal, 16000, used, **settings)
    np.testing.assert_allclose(jax.jit(one)(noisy), expected, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(one)(jnp.asarray(noisy)), expected, atol=1e-6)
    with pytest.raises(ValueError, match="resample before jit"):
        jax.jit(lambda signal: denoising.denoise(signal, 8000, used))(noisy)


@pytest.mark.parametrize(
    ("noisy", "settings", "message"),
    [
        (np.zeros((2, 3, 4)), {}, "shape"),
        (np.zeros(0), {}, "not empty"),
        (np.zeros(10, np.int16), {}, "floating"),
        (np.array([0.0, np.nan]), {}, "NaN"),
        (np.zeros((16000, 2)), {}, r"16000 channels: give \(channels, samples\)"),
        (np.zeros((200, 2)), {}, r"transpose what soundfile reads \(noisy\.T\)"),
        (np.zeros(10, np.int16), {}, r"such as noisy / 32768"),
        ([1, 2, 3], {}, r"noisy is int64: give floating point samples in \[-1, 1\]$"),
        (b"\0\0\0\0", {}, "floating"),
        ([[1.0], [1.0, 2.0]], {}, "noisy is a list, not a NumPy array, nor readable as one"),
        (np.zeros(10), {"sample_rate": np.inf}, "sample_rate is inf"),
        (np.zeros(10), {"sample_rate": np.nan}, "sample_rate is nan"),
        (np.zeros(10), {"sample_rate": "16000"}, "sample_rate is 16000: give 1000 to"),
        (np.zeros(10), {"sample_rate": None}, "sample_rate is None"),
        (np.zeros(10), {"sample_rate": np.array([16000])}, "sample_rate"),
        (np.zeros(10), {"sample_rate": 0}, "sample_rate"),
        (np.zeros(10), {"dry_wet": 1.1}, "dry_wet"),
        (np.zeros(10), {"strength": -0.1}, r"strength is -0.1: give 0 \(keeps all\) to 4"),
        (np.zeros(10), {"strength": float("nan")}, "strength is nan"),
        (np.zeros(10), {"max_attenuation_db": -1.0}, "max_attenuation_db"),
    ],
)
def test_bad_arrays_and_settings_are_refused(used, noisy, settings, message):
    with pytest.raises(ValueError, match=message):
        denoising.denoise(noisy, **({"sample_rate": 16000} | settings), model=used)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 44100, 2, "PCM_24"),
        ("c.wav", 8000, 2, "FLOAT"),
        ("e.wav", 48000, 1, "PCM_U8"),
        ("f.wav", 16000, 2, "PCM_32"),
        ("g.w64", 16000, 1, "DOUBLE"),
        ("h.au", 11025, 1, "ULAW"),
        ("i.ogg", 48000, 2, "VORBIS"),
    ],
)
def test_files_keep_their_format_and_dry_samples_to_the_last_bit(
    used, tmp_path, name, rate, channels, subtype
):
    source, target = tmp_path / name, tmp_path / "out" / name
    soundfile.write(source, noise(9001, channels, dtype=np.float64), rate, subtype=subtype)
    denoising.denoise_file(source, target, used)
    before, after = soundfile.info(source), soundfile.info(target)
    for attribute in ("samplerate", "channels", "frames", "subtype", "format", "endian"):
        assert getattr(before, attribute) == getattr(after, attribute)
    if subtype != "VORBIS":
        denoising.denoise_file(source, target, used, dry_wet=0)
        np.testing.assert_array_equal(soundfile.read(target)[0], soundfile.read(source)[0])


def test_a_file_comes_out_like_its_samples_with_little_held_in_memory(used, tmp_path, monkeypatch):
    monkeypatch.setattr(denoising, "_READ_SAMPLES", 1000)
    monkeypatch.setattr(denoising, "Denoiser", functools.partial(Denoiser, hops=8))
    noisy = noise(2, 30_001)
    audio.write(tmp_path / "x.wav", noisy, 44100, "FLOAT")
    heard, held, feed = [], [], Denoiser.feed
    monkeypatch.setattr(
        Denoiser, "feed", lambda self, samples: held.append(len(self._dry)) or feed(self, samples)
    )
    seconds = denoising.denoise_file(
        tmp_path / "x.wav", tmp_path / "y.wav", used, progress=heard.append
    )
    assert seconds == pytest.approx(30_001 / 44100) == pytest.approx(sum(heard))
    # A block that fills, two in work, and the latency; a piece, and as much in each resampler.
    assert len(held) == 31 and max(held) <= (3 * 8 + 4) * 256 * 44100 / 16000 + 3 * 1000
    out, _ = audio.read(tmp_path / "y.wav", mono=False)
    np.testing.assert_allclose(out, denoising.denoise(noisy, 44100, used), atol=2e-6)


def mp3_in_wav(samples, rate):
    """A WAV file of format tag 0x55, its header written field by field."""
    coded = whole_audio("MP3", "MPEG_LAYER_III", samples, rate)
    fmt = struct.pack("<HHIIHHHHIHHH", 0x55, 1, rate, 8000, 1, 0, 12, 1, 2, 576, 1, 1393)
    chunks = (b"fmt ", fmt), (b"fact", struct.pack("<I", samples.shape[1])), (b"data", coded)
    body = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize(
    ("kind", "subtype", "rate", "name", "expected"),
    [
        ("MP3", "MPEG_LAYER_III", 16000, "y.wav", ("WAV", "PCM_16", 16000)),
        ("MP3", "MPEG_LAYER_III", 44100, "y.flac", ("FLAC", "PCM_16", 44100)),
        ("MP3 in WAV", None, 16000, "x.wav", ("WAV", "PCM_16", 16000)),
        ("OGG", "OPUS", 48000, "y.mp3", ("MP3", "MPEG_LAYER_III", 48000)),
        ("WAV", "PCM_24", 44100, "y.flac", ("FLAC", "PCM_24", 44100)),
        ("WAV", "DOUBLE", 44100, "y.flac", ("FLAC", "PCM_24", 44100)),
        ("WAV", "FLOAT", 8000, "y.sph", ("NIST", "PCM_32", 8000)),
        ("WAV", "PCM_U8", 8000, "y.flac", ("FLAC", "PCM_S8", 8000)),
        ("CAF", "ALAC_24", 8000, "y.wav", ("WAV", "PCM_24", 8000)),
        ("AU", "G721_32", 8000, "y.aifc", ("AIFF", "PCM_16", 8000)),
        ("W64", "ALAW", 8000, "y.snd", ("AU", "ALAW", 8000)),
        ("WAV", "PCM_16", 44100, "y.opus", ("OGG", "OPUS", 48000)),
        ("FLAC", "PCM_24", 96000, "y.mp3", ("MP3", "MPEG_LAYER_III", 48000)),
    ],
)
def test_other_containers_get_a_sample_format_that_holds_as_much(
    used, tmp_path, kind, subtype, rate, name, expected
):
    samples, notes = noise(1, 9001), list[str]()
    in_wav = kind == "MP3 in WAV"
    source, target = tmp_path / "in" / ("x.wav" if in_wav else "x"), tmp_path / name
    source.parent.mkdir()
    source.write_bytes(
        mp3_in_wav(samples, rate) if in_wav else whole_audio(kind, subtype, samples, rate)
    )
    heard = len(audio.read(source)[0])  # coders fill their last block
    seconds = denoising.denoise_file(source, target, used, note=notes.append)
    info = soundfile.info(target)
    assert (info.format, info.subtype, info.samplerate) == expected
    assert seconds == pytest.approx(info.frames / info.samplerate)
    assert info.frames == pytest.approx(heard * expected[2] / rate, abs=1)
    resampled = f"{target}: at {expected[2]} Hz, as {expected[1]} does not hold {rate} Hz"
    assert notes == [resampled] * (rate != expected[2])


def test_a_format_that_does_not_hold_the_channels_is_refused_by_name(used, tmp_path):
    soundfile.write(tmp_path / "x.wav", noise(900, 3), 44100)
    with pytest.raises(audio.AudioError, match=r"y\.mp3: MP3 does not hold 3 channels at 44100"):
        denoising.denoise_file(tmp_path / "x.wav", tmp_path / "y.mp3", used)
    for suffix in ("raw", "sd2", "m4a"):
        with pytest.raises(audio.AudioError, match=rf"no audio format for the suffix '\.{suffix}'"):
            denoising.denoise_file(tmp_path / "x.wav", tmp_path / f"y.{suffix}", used)
    assert os.listdir(tmp_path) == ["x.wav"]


@pytest.mark.parametrize("case", ["truncated", "no channels", "late NaN"])
def test_bad_files_are_named_and_nothing_is_written(used, tmp_path, case):
    path, late = tmp_path / "bad.wav", noise(150_000)
    late[-1] = np.nan if case == "late NaN" else 0
    soundfile.write(path, late, 16000, subtype="FLOAT")
    whole = path.read_bytes()
    if case == "truncated":
        path.write_bytes(whole[:5000])
    elif case == "no channels":
        path.write_bytes(whole[:22] + b"\0\0" + whole[24:])
    (tmp_path / "out").mkdir()
    with pytest.raises(audio.AudioError, match=r"bad\.wav"):
        denoising.denoise_file(path, tmp_path / "out" / "y.wav", used)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["y.wav", "y.flac"])
def test_a_full_disk_keeps_what_was_there(used, tmp_path, name):
    audio.write(tmp_path / "x.wav", noise(2, 60_000), 16000)
    audio.write(tmp_path / name, noise(100), 16000)
    before = (tmp_path / name).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    denoising.denoise(noise(2, 10), 16000, used)  # compiled and cached before the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(audio.AudioError, match=rf"{name}: not written.*full"):
            denoising.denoise_file(tmp_path / "x.wav", tmp_path / name, used)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / name).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == sorted(["x.wav", name])


def test_a_folder_that_cannot_be_written_is_named(used, tmp_path):
    audio.write(tmp_path / "x.wav", noise(500), 16000)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(audio.AudioError, match="not written"):
        denoising.denoise_file(tmp_path / "x.wav", tmp_path / "file" / "y.wav", used)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        with pytest.raises(audio.AudioError, match="Permission denied"):
            denoising.denoise_file(tmp_path / "x.wav", locked / "y.wav", used)
    with pytest.raises(ValueError, match="also the output"):
        denoising.denoise_file(tmp_path / "x.wav", tmp_path / "x.wav", used)

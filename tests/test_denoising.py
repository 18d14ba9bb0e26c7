"""Denoising arrays and files: any rate, channels and length; no seams; nothing half-written."""

import dataclasses
import os
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from small_models import random_model

from blsh_jax import audio, denoising, separation

RATES = [8000, 16000, 22050, 44100, 48000]


@pytest.fixture(scope="module")
def used():
    return random_model()


def with_masks(used, bit):
    """The model with masks that pass everything, or nothing."""
    filled = jnp.full_like(used.dictionary.masks, 0xFFFFFFFF if bit else 0)
    return dataclasses.replace(used, dictionary=dataclasses.replace(used.dictionary, masks=filled))


def noise(*shape, seed=0, dtype=np.float32):
    return (0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def separated(noisy, used):
    """The denoised channels by the batch path."""
    settings = used.config
    return separation.separate(
        jnp.asarray(noisy),
        used.dictionary,
        settings.stft,
        settings.features,
        settings.num_neighbors,
        settings.evidence,
    )


def in_pieces(denoiser, noisy, sizes):
    pieces, start = [], 0
    for size in sizes:
        pieces.append(denoiser.feed(noisy[:, start : start + size]))
        start += size
    return np.concatenate([*pieces, denoiser.feed(noisy[:, start:]), denoiser.flush()], axis=-1)


@pytest.mark.parametrize("rate", RATES)
def test_pieces_leave_no_seams_at_any_rate(used, rate):
    noisy = noise(2, 20_011)
    whole = denoising.denoise(noisy, rate, used)
    for hops, sizes in ((512, (1, 999, 7000)), (1, (5000, 0, 13))):
        denoiser = denoising.Denoiser(used, rate, 2, hops=hops)
        out = in_pieces(denoiser, noisy, sizes)
        assert out.shape == noisy.shape
        np.testing.assert_allclose(out, whole, atol=2e-6)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("length", [1, 2000, 20_011])
def test_a_lead_in_leaves_no_seams(rate, length):
    used = random_model("magnitude", 1, 24, 0.5, lead_in_frames=20)
    noisy = noise(2, length)
    whole = denoising.denoise(noisy, rate, used)
    denoiser = denoising.Denoiser(used, rate, 2, hops=3)
    out = in_pieces(denoiser, noisy, [length // 3, 0, length // 2])
    np.testing.assert_allclose(out, whole, atol=2e-6)
    if rate == 16000:
        expected = separated(noisy, used)
        np.testing.assert_allclose(whole, expected, atol=1e-6)
        traced = jax.jit(lambda signal: denoising.denoise(signal, rate, used))(noisy)
        np.testing.assert_allclose(traced, expected, atol=1e-6)


def test_the_result_is_that_of_the_batch_path(used):
    noisy = noise(2, 200_001)  # longer than a block
    np.testing.assert_allclose(
        denoising.denoise(noisy, 16000, used), separated(noisy, used), atol=1e-6
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", [(1,), (2, 5001)])
def test_shape_kind_and_dtype_come_back(used, rate, shape):
    noisy = noise(*shape, dtype=np.float64)
    for like in (noisy, noisy.astype(np.float32), jnp.asarray(noisy, jnp.float32)):
        speech = denoising.denoise(like, rate, used)
        assert type(speech) is type(like)
        assert (speech.shape, speech.dtype) == (like.shape, like.dtype)
        assert bool(np.isfinite(np.asarray(speech)).all())


def test_silence_stays_silent(used):
    for rate in (16000, 48000):
        assert not denoising.denoise(np.zeros((2, 20_000), np.float32), rate, used).any()


@pytest.mark.parametrize("rate", [16000, 32000, 44100, 48000, 96000])
def test_where_the_mask_passes_all_nothing_changes_in_any_band(used, rate):
    noisy = noise(30_001)
    passed = denoising.denoise(noisy, rate, with_masks(used, True))
    np.testing.assert_allclose(passed, noisy, atol=2e-6)
    limited = denoising.denoise(noisy, rate, used, max_attenuation_db=0)
    np.testing.assert_allclose(limited, noisy, atol=2e-6)


def test_below_the_models_rate_what_the_mask_passes_is_what_resampling_passes(used):
    low = audio.resample(noise(2000), 4000, 8000)
    passed = denoising.denoise(low, 8000, with_masks(used, True))
    np.testing.assert_allclose(passed[100:-100], low[100:-100], atol=1e-3)


def test_the_band_above_follows_the_gain_below(used):
    time = np.arange(96_000) / 48_000
    tone = np.sin(2 * np.pi * 15_000 * time).astype(np.float32)
    middle = slice(20_000, 76_000)
    gone = denoising.denoise(tone, 48_000, with_masks(used, False))
    assert np.abs(gone[middle]).max() < 1e-4
    floored = denoising.denoise(tone, 48_000, with_masks(used, False), max_attenuation_db=20)
    np.testing.assert_allclose(floored[middle], 0.1 * tone[middle], atol=1e-4)


def test_dry_wet_mixes_in_step(used):
    for rate in (16000, 44100):
        noisy = noise(2, 9000)
        dry, wet = (denoising.denoise(noisy, rate, used, dry_wet=part) for part in (0, 1))
        np.testing.assert_array_equal(dry, noisy)
        half = denoising.denoise(noisy, rate, used, dry_wet=0.5)
        np.testing.assert_allclose(half, (noisy + wet) / 2, atol=1e-6)


def test_max_attenuation_bounds_every_frequency(used):
    noisy = noise(16_384)
    limited = denoising.denoise(noisy, 16000, with_masks(used, False), max_attenuation_db=12)
    np.testing.assert_allclose(limited, noisy * 10 ** (-12 / 20), atol=1e-6)


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
    ("noisy", "message"),
    [
        (np.zeros((2, 3, 4)), "shape"),
        (np.zeros(0), "not empty"),
        (np.zeros(10, np.int16), "floating"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.zeros((16000, 2)), r"16000 channels: give \(channels, samples\)"),
    ],
)
def test_bad_arrays_are_refused(used, noisy, message):
    with pytest.raises(ValueError, match=message):
        denoising.denoise(noisy, 16000, used)


@pytest.mark.parametrize(
    "setting", [{"sample_rate": 0}, {"dry_wet": 1.1}, {"max_attenuation_db": -1.0}]
)
def test_bad_settings_are_refused(used, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        denoising.denoise(np.zeros(10), **({"sample_rate": 16000} | setting), model=used)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 44100, 2, "PCM_24"),
        ("b.flac", 16000, 1, "PCM_16"),
        ("c.wav", 8000, 3, "FLOAT"),
        ("d.aiff", 22050, 1, "PCM_S8"),
        ("e.wav", 48000, 1, "PCM_U8"),
        ("f.wav", 32000, 2, "PCM_32"),
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


def test_a_file_comes_out_like_its_samples(used, tmp_path, monkeypatch):
    monkeypatch.setattr(denoising, "_READ_SAMPLES", 1000)
    noisy = noise(2, 30_001)
    audio.write(tmp_path / "x.wav", noisy, 44100, "FLOAT")
    heard = []
    seconds = denoising.denoise_file(
        tmp_path / "x.wav", tmp_path / "y.wav", used, progress=heard.append
    )
    assert seconds == pytest.approx(30_001 / 44100) == pytest.approx(sum(heard))
    out, _ = audio.read(tmp_path / "y.wav", mono=False)
    np.testing.assert_allclose(out, denoising.denoise(noisy, 44100, used), atol=2e-6)


def test_a_suffix_that_differs_changes_the_container(used, tmp_path):
    for subtype, expected in (("PCM_24", "PCM_24"), ("DOUBLE", "PCM_16")):
        soundfile.write(tmp_path / "x.wav", noise(900), 16000, subtype=subtype)
        denoising.denoise_file(tmp_path / "x.wav", tmp_path / "y.flac", used)
        info = soundfile.info(tmp_path / "y.flac")
        assert (info.format, info.subtype, info.frames) == ("FLAC", expected, 900)


def test_memory_is_bounded_by_the_block_not_by_the_file(used, tmp_path, monkeypatch):
    noisy = noise(1, 400_000)
    audio.write(tmp_path / "x.wav", noisy, 16000)
    taken = []
    feed = denoising.Denoiser.feed
    monkeypatch.setattr(denoising, "_READ_SAMPLES", 10_000)
    monkeypatch.setattr(
        denoising.Denoiser,
        "feed",
        lambda self, samples: taken.append(len(self._dry)) or feed(self, samples),
    )
    denoising.denoise_file(tmp_path / "x.wav", tmp_path / "y.wav", used)
    assert len(taken) == 40 and max(taken) <= 512 * 256 + 10_000


def bad_file(path, case):
    """A file that cannot be denoised."""
    audio.write(path, noise(2, 30_000), 44100)
    whole = path.read_bytes()
    if case == "truncated":
        path.write_bytes(whole[:5000])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "no samples":
        soundfile.write(path, np.zeros((0, 2)), 44100)
    elif case == "no channels":
        path.write_bytes(whole[:22] + b"\0\0" + whole[24:])
    elif case == "text":
        path.write_text("not audio at all")
    elif case == "late NaN":
        late = noise(150_000)
        late[-1] = np.nan
        soundfile.write(path, late, 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    "case", ["truncated", "empty", "no samples", "no channels", "text", "late NaN"]
)
def test_bad_files_are_named_and_nothing_is_written(used, tmp_path, case):
    path = tmp_path / "bad.wav"
    bad_file(path, case)
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

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from blsh_jax import codes, config, denoising, model, separation


@pytest.fixture(scope="module", params=[1, 3], ids=["one frame", "three frames"])
def small_model(request):
    """A model over random frames, with one frame or three side by side."""
    features = config.FeatureConfig(context=request.param)
    keys = jax.random.split(jax.random.key(0), 3)
    frames = jnp.abs(jax.random.normal(keys[0], (300, 513 * request.param)))
    hasher = codes.random_hasher(keys[1], 40, frames)
    binary = jax.random.bernoulli(keys[2], 0.5, (300, 513))
    dictionary = separation.build_dictionary(hasher, frames, binary)
    return model.Model(config.TrainConfig(features=features), dictionary, {})


def test_chunks_leave_no_seams(small_model, monkeypatch):
    noisy = np.random.default_rng(0).standard_normal((2, 70_001)).astype(np.float32)
    whole = denoising.denoise_chunks(noisy, small_model)
    monkeypatch.setattr(denoising, "_MAX_CHUNK_FRAMES", 64)
    chunked = denoising.denoise_chunks(noisy, small_model)
    assert whole.shape == noisy.shape
    np.testing.assert_allclose(chunked, whole, atol=2e-5)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("shape", [(1,), (480,), (3, 5001)])
def test_shape_kind_and_dtype_come_back(small_model, rate, shape):
    noisy = np.random.default_rng(0).standard_normal(shape)
    for like in (np.asarray(noisy), np.asarray(noisy, np.float32), jnp.asarray(noisy, jnp.float32)):
        speech = denoising.denoise(like, rate, small_model)
        assert type(speech) is type(like)
        assert (speech.shape, speech.dtype) == (like.shape, like.dtype)
        assert bool(np.isfinite(np.asarray(speech)).all())


def test_silence_stays_silent(small_model):
    silent = np.zeros((2, 20_000), np.float32)
    assert not denoising.denoise(silent, 16000, small_model).any()


def test_inside_jit_and_vmap(small_model):
    noisy = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)
    expected = denoising.denoise(noisy, 16000, small_model)
    one = lambda signal: denoising.denoise(signal, 16000, small_model)
    np.testing.assert_allclose(jax.jit(one)(noisy), expected, atol=2e-5)
    np.testing.assert_allclose(jax.vmap(one)(jnp.asarray(noisy)), expected, atol=2e-5)
    with pytest.raises(ValueError, match="resample before jit"):
        jax.jit(lambda signal: denoising.denoise(signal, 8000, small_model))(noisy)


@pytest.mark.parametrize(
    ("noisy", "message"),
    [
        (np.zeros((2, 3, 4)), "shape"),
        (np.zeros(0), "not empty"),
        (np.zeros(10, np.int16), "floating"),
        (np.array([0.0, np.nan]), "NaN"),
    ],
)
def test_bad_arrays_are_refused(small_model, noisy, message):
    with pytest.raises(ValueError, match=message):
        denoising.denoise(noisy, 16000, small_model)
    with pytest.raises(ValueError, match="sample_rate"):
        denoising.denoise(np.zeros(10), 0, small_model)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [("a.wav", 44100, 2, "PCM_24"), ("b.flac", 16000, 1, "PCM_16"), ("c.wav", 8000, 3, "FLOAT")],
)
def test_files_keep_their_format(small_model, tmp_path, name, rate, channels, subtype):
    noisy = 0.1 * np.random.default_rng(0).standard_normal((9001, channels))
    soundfile.write(tmp_path / name, noisy, rate, subtype=subtype)
    denoising.denoise_file(tmp_path / name, tmp_path / "out" / name, small_model)
    before, after = (soundfile.info(path) for path in (tmp_path / name, tmp_path / "out" / name))
    for attribute in ("samplerate", "channels", "frames", "subtype", "format"):
        assert getattr(before, attribute) == getattr(after, attribute)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import FeatureConfig, StftConfig
from blsh_jax.paper import spectra
from blsh_jax.paper.spectra import SpectralFeatures

CONFIG = StftConfig()
SMALL = StftConfig(window_length=64, hop_length=16)


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("config", "num_samples"),
    [
        *((SMALL, length) for length in (1, 16, 17, 400)),
        (StftConfig(window_length=512, hop_length=256), 3001),
    ],
)
def test_inverse_restores_signals_of_any_length(config, num_samples):
    signal = noise(2, num_samples)
    restored = spectra.istft(spectra.stft(signal, config), num_samples, config)
    np.testing.assert_allclose(restored, signal, atol=1e-5)


def test_stft_matches_a_slow_transform_alone_and_in_batches():
    signals = noise(2, 3000)
    window = np.hanning(1025)[:1024]
    padded = np.pad(np.asarray(signals), ((0, 0), (768, 1024)))
    expected = [
        np.fft.rfft(window * padded[:, t * 256 : t * 256 + 1024])
        for t in range(spectra.num_frames(3000, CONFIG))
    ]
    expected = np.stack(expected, axis=1)
    np.testing.assert_allclose(spectra.stft(signals, CONFIG), expected, atol=2e-4)
    mapped = jax.jit(jax.vmap(lambda x: spectra.stft(x, CONFIG)))(signals)
    np.testing.assert_allclose(mapped, expected, atol=2e-4)


def test_a_frame_ends_with_its_hop_and_zeros_around_a_signal_change_none():
    click = jnp.zeros(400).at[10 * 16].set(1.0)
    energy = jnp.sum(jnp.abs(spectra.stft(click, SMALL)) ** 2, axis=-1)
    # The click is the centre of the window that ends two hops after it.
    assert int(jnp.argmax(energy)) == 11
    alone = spectra.stft(noise(400), SMALL)
    padded = spectra.stft(jnp.pad(noise(400), (32, 200)), SMALL)
    np.testing.assert_allclose(padded[2 : 2 + len(alone)], alone, atol=1e-5)
    assert not padded[:2].any() and not padded[2 + len(alone) :].any()


def test_frame_mask_counts_each_utterance_as_if_it_were_alone():
    lengths = jnp.array([0, 1, 256, 257, 5000], jnp.int32)
    mask = spectra.frame_mask(lengths, 5000, CONFIG)
    alone = [0] + [spectra.num_frames(int(n), CONFIG) for n in lengths[1:]]
    assert mask.shape == (5, spectra.num_frames(5000, CONFIG))
    assert mask.sum(1).tolist() == alone


@pytest.mark.parametrize(("kind", "num_mels"), [("magnitude", 20), ("mel", 20), ("log_mel", 400)])
def test_features_are_unit_vectors_of_any_level_and_silence_is_zero(kind, num_mels):
    function = SpectralFeatures(FeatureConfig(kind, num_mels=num_mels, context=3), SMALL)
    signal = jnp.concatenate([noise(400), jnp.zeros(200)])
    features = jax.jit(lambda x: spectra.features(function, spectra.stft(x, SMALL)))
    frames = features(signal)
    assert frames.shape[-1] == function.size == 3 * (33 if kind == "magnitude" else num_mels)
    np.testing.assert_allclose(jnp.linalg.norm(frames[:20], axis=-1), 1, atol=1e-5)
    assert not frames[-1].any() and bool(jnp.isfinite(frames).all())
    for level in (1e-15, 1e6):
        np.testing.assert_allclose(features(signal * level), frames, atol=1e-5)
    filters = spectra.mel_filters(num_mels, CONFIG)  # no band is empty
    assert filters.shape == (513, num_mels) and (filters.sum(0) > 0).all()
    assert (np.diff(filters.argmax(0)) >= 0).all()


def test_context_puts_neighbours_side_by_side_whole_or_in_blocks():
    wide = SpectralFeatures(FeatureConfig(context=3), SMALL)
    spectrum = spectra.stft(noise(2, 100), SMALL)
    frames = np.abs(np.asarray(spectrum))
    padded = np.pad(frames, ((0, 0), (1, 1), (0, 0)))
    count = frames.shape[1]
    beside = np.concatenate([padded[:, i : i + count] for i in range(3)], axis=-1)
    expected = beside / np.linalg.norm(beside, axis=-1, keepdims=True)
    whole = jax.jit(lambda x: spectra.features(wide, x))(spectrum)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    run = jax.jit(wide)
    state, first = run(wide.init((2,)), spectrum[:, :5])
    _, second = run(state, spectrum[:, 5:10])
    late = np.concatenate([first, second], axis=1)  # by the frame of look-ahead
    np.testing.assert_allclose(late[:, 1:], expected[:, :9], atol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no samples"):
        spectra.stft(jnp.zeros((2, 0)), CONFIG)
    with pytest.raises(ValueError, match="7 frames"):
        spectra.istft(jnp.zeros((7, 513), jnp.complex64), 16000, CONFIG)

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import spectra
from blsh_jax.config import FeatureConfig, StftConfig

CONFIG = StftConfig()


@pytest.mark.parametrize("num_samples", [1, 255, 256, 257, 1024, 4097, 16000])
def test_inverse_restores_signals_of_any_length(num_samples):
    signal = jax.random.normal(jax.random.key(num_samples), (2, num_samples))
    restored = spectra.istft(spectra.stft(signal, CONFIG), num_samples, CONFIG)
    np.testing.assert_allclose(restored, signal, atol=1e-5)


def test_stft_matches_a_slow_transform():
    signal = np.random.default_rng(0).standard_normal(3000)
    window = np.hanning(1025)[:1024]
    padded = np.pad(signal, (768, 1024))
    expected = [
        np.fft.rfft(window * padded[t * 256 : t * 256 + 1024])
        for t in range(spectra.num_frames(3000, CONFIG))
    ]
    actual = spectra.stft(jnp.asarray(signal, jnp.float32), CONFIG)
    np.testing.assert_allclose(actual, np.array(expected), atol=2e-4)


def test_a_frame_ends_with_its_hop():
    click = jnp.zeros(8000).at[10 * 256].set(1.0)
    energy = jnp.sum(jnp.abs(spectra.stft(click, CONFIG)) ** 2, axis=-1)
    # The click is the centre of the window that ends two hops after it.
    assert int(jnp.argmax(energy)) == 11


def test_frame_mask_counts_each_utterance_as_if_it_were_alone():
    lengths = jnp.array([0, 1, 256, 257, 5000], jnp.int32)
    mask = spectra.frame_mask(lengths, 5000, CONFIG)
    alone = [0] + [spectra.num_frames(int(n), CONFIG) for n in lengths[1:]]
    assert mask.shape == (5, spectra.num_frames(5000, CONFIG))
    assert mask.sum(1).tolist() == alone


def test_zeros_around_a_signal_change_no_frame():
    signal = jax.random.normal(jax.random.key(0), (5000,))
    alone = spectra.stft(signal, CONFIG)
    padded = spectra.stft(jnp.pad(signal, (512, 3000)), CONFIG)
    np.testing.assert_allclose(padded[2 : 2 + len(alone)], alone, atol=1e-4)
    assert not padded[:2].any()
    assert not padded[2 + len(alone) :].any()


@pytest.mark.parametrize(("window", "hop"), [(512, 256), (1024, 128), (256, 64)])
def test_other_sizes_restore_signals_too(window, hop):
    config = StftConfig(window_length=window, hop_length=hop)
    signal = jax.random.normal(jax.random.key(0), (3001,))
    restored = spectra.istft(spectra.stft(signal, config), 3001, config)
    np.testing.assert_allclose(restored, signal, atol=1e-5)


@pytest.mark.parametrize("kind", ["magnitude", "mel", "log_mel"])
@pytest.mark.parametrize("context", [1, 3])
def test_features_are_unit_vectors_and_silence_is_zero(kind, context):
    config = FeatureConfig(kind, num_mels=64, context=context)
    signal = jnp.concatenate([jax.random.normal(jax.random.key(0), (8000,)), jnp.zeros(8192)])
    frames = jax.jit(lambda x: spectra.features(spectra.stft(x, CONFIG), config, CONFIG))(signal)
    norms = jnp.linalg.norm(frames, axis=-1)
    assert frames.shape[-1] == spectra.num_features(config, CONFIG)
    np.testing.assert_allclose(norms[:20], 1, atol=1e-5)
    assert float(norms[-1]) == 0
    assert bool(jnp.isfinite(frames).all())


@pytest.mark.parametrize("kind", ["magnitude", "mel", "log_mel"])
@pytest.mark.parametrize("level", [1e-15, 1e6])
def test_features_do_not_depend_on_level(kind, level):
    config = FeatureConfig(kind)
    signal = jax.random.normal(jax.random.key(0), (8000,))
    reference = spectra.features(spectra.stft(signal, CONFIG), config, CONFIG)
    scaled = spectra.features(spectra.stft(signal * level, CONFIG), config, CONFIG)
    np.testing.assert_allclose(scaled, reference, atol=1e-5)


def test_context_puts_neighbours_side_by_side():
    frames = jnp.arange(10, dtype=jnp.float32).reshape(5, 2)
    stacked = spectra.stack_frames(frames, 3)
    assert stacked[2].tolist() == [2, 3, 4, 5, 6, 7]
    assert stacked[0].tolist() == [0, 0, 0, 1, 2, 3]
    assert stacked[4].tolist() == [6, 7, 8, 9, 0, 0]


@pytest.mark.parametrize("num_mels", [20, 128, 400])
def test_mel_filters_leave_no_band_empty_and_peak_in_order(num_mels):
    filters = spectra.mel_filters(num_mels, CONFIG)
    assert filters.shape == (513, num_mels)
    assert (filters.sum(0) > 0).all()
    assert (np.diff(filters.argmax(0)) >= 0).all()


def test_batches_and_jit_agree_with_single_signals():
    signals = jax.random.normal(jax.random.key(0), (3, 4000))
    batched = jax.jit(spectra.stft, static_argnums=1)(signals, CONFIG)
    mapped = jax.vmap(lambda x: spectra.stft(x, CONFIG))(signals)
    single = jnp.stack([spectra.stft(x, CONFIG) for x in signals])
    np.testing.assert_allclose(batched, single, atol=1e-4)
    np.testing.assert_allclose(mapped, single, atol=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no samples"):
        spectra.stft(jnp.zeros((2, 0)), CONFIG)
    with pytest.raises(ValueError, match="7 frames"):
        spectra.istft(jnp.zeros((7, 513), jnp.complex64), 16000, CONFIG)
    with pytest.raises(ValueError, match="hop_length"):
        StftConfig(hop_length=300)
    with pytest.raises(ValueError, match="context"):
        FeatureConfig(context=2)


LEVELS = FeatureConfig(levels=12, floor_frames=5)


def _slow_levels(bands, reach, lead):
    """Levels above the least of the last ``reach`` frames that lie ``lead`` frames into sound."""
    levels = np.zeros_like(bands)
    for t in range(len(bands)):
        counted = [
            bands[u]
            for u in range(max(0, t - reach + 1), t + 1)
            if u >= lead and all(bands[v].max() > 0 for v in range(u - lead, u + 1))
        ]
        if counted:
            ratio = np.maximum(bands[t] / np.min(counted, axis=0), 1)
            levels[t] = np.minimum(20 * np.log10(ratio), 40)
    return levels


def _interrupted(length=20 * 256):
    """Noise of changing level, a digital silence inside."""
    signal = jax.random.normal(jax.random.key(5), (length,)) * jnp.linspace(0.01, 1, length)
    return signal.at[2500:4200].set(0)


def test_levels_stand_above_the_floor_of_the_frames_before():
    spectrum = spectra.stft(_interrupted(), CONFIG)
    features = np.asarray(spectra.features(spectrum, LEVELS, CONFIG), np.float64)
    assert features.shape[-1] == spectra.num_features(LEVELS, CONFIG) == 513 + 12
    bands = np.abs(np.asarray(spectrum)) @ spectra.mel_filters(12, CONFIG)
    levels = _slow_levels(bands, 5, 3)
    norms = np.linalg.norm(levels, axis=1, keepdims=True)
    expected = levels / np.where(norms > 0, norms, 1)
    magnitude = np.asarray(spectra.features(spectrum, FeatureConfig(), CONFIG), np.float64)
    both = np.concatenate([magnitude, expected], axis=1)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-30)
    assert np.count_nonzero(norms) > 8 and np.count_nonzero(norms == 0) > 5
    np.testing.assert_allclose(features, both, atol=2e-5)


def test_levels_do_not_depend_on_gain_padding_or_where_a_signal_is_cut():
    signal = _interrupted()
    whole = spectra.features(spectra.stft(signal, CONFIG), LEVELS, CONFIG)
    louder = spectra.features(spectra.stft(8 * signal, CONFIG), LEVELS, CONFIG)
    np.testing.assert_allclose(louder, whole, atol=1e-5)
    padded = jnp.pad(signal, (512, 0))
    later = spectra.features(spectra.stft(padded, CONFIG), LEVELS, CONFIG)
    np.testing.assert_allclose(later[2:], whole, atol=1e-5)
    spectrum = spectra.stft(signal, CONFIG)
    past = spectra.level_bands(spectrum[2:9], LEVELS, CONFIG)
    assert len(past) == spectra.num_past_frames(LEVELS, CONFIG) == 7
    rest = spectra.features(spectrum[9:], LEVELS, CONFIG, past)
    np.testing.assert_allclose(rest, whole[9:], atol=1e-6)


def test_bad_levels_are_refused():
    for wrong in ({"levels": -1}, {"floor_frames": 0}):
        with pytest.raises(ValueError, match="levels is"):
            FeatureConfig(**wrong)
    with pytest.raises(ValueError, match="lead_in_frames is -1"):
        FeatureConfig(lead_in_frames=-1)


@pytest.mark.parametrize("length", [1, 600, 2 * 256 + 1, 3000])
def test_a_lead_in_is_the_start_backwards_and_then_the_signal(length):
    features = FeatureConfig(lead_in_frames=2)
    signal = np.arange(1, length + 1, dtype=np.float32)
    heard = np.asarray(spectra.with_lead_in(jnp.asarray(signal), features, CONFIG))
    backwards = [signal[i] if i < length else 0 for i in range(512, 0, -1)]
    np.testing.assert_array_equal(heard, [*backwards, *signal])
    padded = jnp.zeros((2, 4000)).at[:, :length].set(signal)
    batch = np.asarray(spectra.with_lead_in(padded, features, CONFIG))
    np.testing.assert_array_equal(batch[1, : len(heard)], heard)
    spectrum = spectra.heard(padded, features, CONFIG)
    assert spectrum.shape[1] == 2 + spectra.num_frames(4000, CONFIG)
    restored = spectra.unheard(spectrum, 4000, features, CONFIG)
    np.testing.assert_allclose(restored, padded, rtol=1e-5, atol=1e-3)
    untouched = spectra.with_lead_in(padded, FeatureConfig(), CONFIG)
    np.testing.assert_array_equal(untouched, padded)


def test_frames_of_the_lead_in_are_dropped_and_make_floors():
    features = dataclasses.replace(LEVELS, lead_in_frames=5)
    speech, noise = _interrupted(), jnp.flip(_interrupted())
    *parts, frames = spectra.parts_and_features(speech, noise, features, CONFIG)
    for part, signal in zip(parts, (speech, noise), strict=True):
        plain = spectra.stft(signal, CONFIG)
        assert part.shape == plain.shape
        np.testing.assert_allclose(part[3:], plain[3:], atol=1e-4)
    without = spectra.features(sum(parts), LEVELS, CONFIG)
    assert frames.shape == without.shape
    assert frames[0, 513:].any() and not without[0, 513:].any()
    np.testing.assert_allclose(frames[8:], without[8:], atol=1e-5)


def test_features_stay_float32_where_float64_is_on():
    spectrum = spectra.stft(jax.random.normal(jax.random.key(0), (4096,), jnp.float32), CONFIG)
    with jax.enable_x64(True):
        assert spectra.features(spectrum, LEVELS, CONFIG).dtype == jnp.float32

"""Levels above the noise floor, against a slow loop, and the pre-roll that makes floors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import FeatureConfig, SeparationConfig, StftConfig, TrainConfig
from blsh_jax.paper import spectra
from blsh_jax.paper.spectra import SpectralFeatures
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.pre_roll import with_pre_roll
from blsh_jax.training.dictionary import analyse

STFT = StftConfig(window_length=64, hop_length=16)
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


@pytest.fixture(scope="module")
def signal():
    """Noise of changing level, a digital silence inside."""
    made = np.random.default_rng(5).standard_normal(20 * 16) * np.linspace(0.01, 1, 20 * 16)
    made[160:260] = 0
    return jnp.asarray(made, jnp.float32)


@jax.jit
def levels_of(signals):
    return spectra.features(feature_function(LEVELS, STFT), spectra.stft(signals, STFT))


def _unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def test_levels_stand_above_the_floor_of_the_frames_before(signal):
    spectrum = np.asarray(spectra.stft(signal, STFT), np.complex128)
    levels = _slow_levels(np.abs(spectrum) @ spectra.mel_filters(12, STFT), 5, 3)
    assert np.count_nonzero(levels.any(1)) > 8 and np.count_nonzero(~levels.any(1)) > 5
    expected = _unit(np.concatenate([_unit(np.abs(spectrum)), _unit(levels)], axis=1))
    assert expected.shape[1] == feature_function(LEVELS, STFT).size == 33 + 12
    np.testing.assert_allclose(levels_of(signal), expected, atol=2e-5)
    with jax.enable_x64(True):
        frames = levels_of(signal)
        assert frames.dtype == jnp.float32
        np.testing.assert_allclose(frames, expected, atol=2e-5)


def test_levels_do_not_depend_on_gain_or_padding(signal):
    whole = levels_of(signal)
    np.testing.assert_allclose(levels_of(8 * signal), whole, atol=1e-5)
    np.testing.assert_allclose(levels_of(jnp.pad(signal, (32, 0)))[2:], whole, atol=1e-5)


@pytest.mark.parametrize("length", [1, 33, 100])
def test_a_pre_roll_is_the_start_backwards_and_then_the_signal(length):
    signal = np.arange(1, length + 1, dtype=np.float32)
    backwards = [signal[i] if i < length else 0 for i in range(32, 0, -1)]
    rolled = np.asarray(with_pre_roll(signal, 2, STFT))
    np.testing.assert_array_equal(rolled, [*backwards, *signal])
    padded = np.zeros((2, 150), np.float32)
    padded[:, :length] = signal
    np.testing.assert_array_equal(with_pre_roll(padded, 2, STFT)[1, : len(rolled)], rolled)
    np.testing.assert_array_equal(with_pre_roll(padded, 0, STFT), padded)


def test_frames_of_the_pre_roll_are_dropped_and_make_floors(signal):
    speech, noise = signal[None], signal[None, ::-1]
    compiled = jax.jit(analyse, static_argnames="config")
    seen, without = (
        compiled(speech, noise, config=TrainConfig(SeparationConfig(STFT, features)))
        for features in (dataclasses.replace(LEVELS, pre_roll_frames=5), LEVELS)
    )
    for name in ("speech", "noise", "frames", "mask"):
        found, plain = getattr(seen, name)[0], getattr(without, name)[0]
        assert found.shape == plain.shape
        settled = 8 if name == "frames" else 3
        np.testing.assert_allclose(found[settled:], plain[settled:], atol=1e-5)
    assert seen.frames[0, 0, 33:].any() and not without.frames[0, 0, 33:].any()


def test_only_what_was_added_makes_features_robust():
    assert isinstance(feature_function(FeatureConfig("mel"), STFT), SpectralFeatures)

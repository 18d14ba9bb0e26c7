"""Voicing: combs are found, noise is none, and nothing but the shape of a spectrum counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_model

from blsh_jax.config import FeatureConfig, StftConfig
from blsh_jax.export import costs
from blsh_jax.paper import spectra
from blsh_jax.robust import voicing
from blsh_jax.robust.features import feature_function

CONFIG = StftConfig()
BANDS = 16
FILTERS = spectra.mel_filters(BANDS, CONFIG)


def _voice(pitch, samples=6000, seed=0):
    """Harmonics of a steady pitch, up to 4 kHz, with random phases."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / CONFIG.sample_rate
    partials = np.arange(1, int(4000 / pitch) + 1)
    phases = rng.uniform(0, 2 * np.pi, len(partials))
    return np.sin(2 * np.pi * pitch * np.outer(time, partials) + phases).sum(1).astype(np.float32)


def _noise(samples=6000, seed=1):
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def _magnitude(signal):
    """Of the frames that lie in the signal whole."""
    return jnp.abs(spectra.stft(jnp.asarray(signal), CONFIG))[4:-4]


@jax.jit
def band_voicing(magnitude):
    return voicing.band_voicing(magnitude, FILTERS, CONFIG)


def _slow(magnitude, filters):
    """One frame by the formula, a lag and a bin at a time."""
    root = np.sqrt(np.asarray(magnitude, np.float64))
    fine = np.zeros(513)
    for k in range(513):
        near = np.mean([root[min(max(i, 0), 512)] for i in range(k - 8, k + 9)])
        fine[k] = root[k] / near - 1 if near > 0 else 0
    comb = lambda lag: np.cos(2 * np.pi * np.arange(513) * lag / 1024)
    likeness = {lag: np.sum(fine[4:192] * comb(lag)[4:192]) for lag in range(40, 230)}
    teeth = comb(max(likeness, key=likeness.__getitem__))
    found = []
    for weights in filters.T:
        energies = np.sum(weights * fine**2) * np.sum(weights * teeth**2)
        found.append(np.sum(weights * fine * teeth) / np.sqrt(energies) if energies else 0)
    return np.array(found)


def test_the_formula_a_bin_at_a_time_also_mapped():
    magnitude = _magnitude(_voice(130) + 3 * _noise())[:6]
    expected = [_slow(frame, FILTERS) for frame in magnitude]
    found = jax.jit(jax.vmap(band_voicing))(magnitude.reshape(2, 3, 513))
    assert found.shape == (2, 3, BANDS) and found.dtype == jnp.float32
    np.testing.assert_allclose(found.reshape(6, BANDS), expected, atol=1e-4)


@pytest.mark.parametrize("pitch", [85.0, 330.0])
def test_a_voice_is_a_comb_and_noise_is_not(pitch):
    voiced = np.asarray(band_voicing(_magnitude(_voice(pitch))))
    unvoiced = np.asarray(band_voicing(_magnitude(_noise())))
    # Bands wide enough for several harmonics, below the highest of them.
    wide = (FILTERS.T @ spectra.bin_hertz(CONFIG) / FILTERS.sum(0) < 3000) & (
        np.count_nonzero(FILTERS, axis=0) * 15.625 > 2 * pitch
    )
    assert np.count_nonzero(wide) >= 3
    assert voiced[:, wide].min() > 0.5
    assert unvoiced[:, wide].mean() < 0.35
    assert np.abs(voiced).max() <= 1 + 1e-6


def test_gain_and_smooth_colour_change_little_and_silence_and_empty_bands_do_no_harm():
    magnitude = _magnitude(_voice(150) + _noise())
    found = band_voicing(magnitude)
    np.testing.assert_allclose(band_voicing(1000 * magnitude), found, atol=1e-4)
    tilt = jnp.asarray(10 ** np.linspace(0, -1.5, 513), jnp.float32)
    tilted = band_voicing(magnitude * tilt[None])
    assert float(jnp.mean(jnp.abs(tilted - found))) < 0.02
    half = np.asarray(band_voicing(_magnitude(_voice(100)).at[:, 200:].set(0).at[1].set(0)))
    assert np.isfinite(half).all() and half[0].any() and not half[1].any()


def test_voicing_stands_beside_the_other_features():
    spectrum = spectra.stft(jnp.asarray(_voice(140) + _noise()), CONFIG)[4:20]
    plain, voiced = (
        feature_function(FeatureConfig(levels=12, floor_frames=5, voicing=bands), CONFIG)
        for bands in (0, BANDS)
    )
    found = np.asarray(jax.jit(lambda x: spectra.features(voiced, x))(spectrum))
    assert found.shape == (16, voiced.size) == (16, 513 + 12 + BANDS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    before = jax.jit(lambda x: spectra.features(plain, x))(spectrum)
    np.testing.assert_allclose(spectra.unit_norm(jnp.asarray(found[:, :525])), before, atol=1e-6)
    # The unit spectrum has norm 1, so what stands beside it can be read off.
    scale = np.linalg.norm(found[:, :513], axis=1, keepdims=True)
    expected = band_voicing(jnp.abs(spectrum))
    np.testing.assert_allclose(found[:, 525:] / scale * 4, expected, atol=1e-5)


def test_operations_are_counted():
    without, found = (costs.cost(random_model(voicing=count)) for count in (0, BANDS))
    fine_structure = 513 * (17 + 2) + 513 * 3  # sums, mean, quotient; product and two squares
    combs = 2 * 190 * 188
    bands = 3 * 2 * np.count_nonzero(FILTERS)
    assert found.features - without.features == fine_structure + combs + bands + 3 * BANDS
    assert found.projection - without.projection == 2 * 40 * BANDS


def test_what_cannot_hold_a_voice_is_refused():
    short = StftConfig(window_length=256, hop_length=64)
    with pytest.raises(ValueError, match="window_length is 256: voicing needs 458"):
        voicing.layout(short)

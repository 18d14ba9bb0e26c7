import jax.numpy as jnp
import numpy as np

from blsh_jax.config import StftConfig
from blsh_jax.paper import masks, spectra
from blsh_jax.robust.band_shares import band_shares
from blsh_jax.robust.high_pass import high_pass
from blsh_jax.search.packing import pack_bits

CONFIG = StftConfig()
SMALL = StftConfig(window_length=256, hop_length=64)


def test_the_binary_mask_compares_magnitudes_and_the_ratio_mask_is_the_part_of_the_energy():
    speech = jnp.array([3j, 1.0, 2.0, 0.0], jnp.complex64)
    noise = jnp.array([2.0, -2.0, 2.0, 0.0], jnp.complex64)
    assert masks.ideal_binary_mask(speech, noise).tolist() == [True, False, False, False]
    speech = jnp.array([3.0, 0.0, 0.0, 5j], jnp.complex64)
    noise = jnp.array([4.0, 1.0, 0.0, 0.0], jnp.complex64)
    np.testing.assert_allclose(masks.ideal_ratio_mask(speech, noise), [0.6, 0, 0, 1], atol=1e-6)


def test_bins_below_any_voice_are_noise():
    binary = jnp.ones((2, 513), bool).at[1, 100].set(False)
    found = high_pass(binary, 50.0, CONFIG)
    assert not found[:, :4].any()  # bins of 0, 15.6, 31.2 and 46.9 Hz
    np.testing.assert_array_equal(found[:, 4:], binary[:, 4:])
    np.testing.assert_array_equal(high_pass(binary, 0.0, CONFIG), binary)


def test_oracle_masks_separate_disjoint_bands():
    time = jnp.arange(4000) / 16000
    speech, noise = jnp.sin(2 * jnp.pi * 500 * time), jnp.sin(2 * jnp.pi * 4000 * time)
    spectrum = spectra.stft(speech, SMALL), spectra.stft(noise, SMALL)
    mixture = spectra.stft(speech + noise, SMALL)
    for ideal in (masks.ideal_binary_mask, masks.ideal_ratio_mask):
        estimate = spectra.istft(masks.apply_mask(ideal(*spectrum), mixture), 4000, SMALL)
        error = jnp.sum((estimate - speech) ** 2) / jnp.sum(speech**2)
        assert float(error) < 1e-2


def test_shares_are_the_magnitudes_of_bands():
    rng = np.random.default_rng(0)
    mixture = (rng.standard_normal((3, 7)) + 1j * rng.standard_normal((3, 7))).astype(np.complex64)
    mixture[2] = 0
    binary, filters = rng.random((3, 7)) < 0.5, rng.random((7, 4)).astype(np.float32)
    found = np.asarray(band_shares(binary, mixture, filters))
    speech = (np.abs(mixture) * binary) @ filters
    rest = (np.abs(mixture) * ~binary) @ filters
    whole = (speech + rest).sum(1)[:2]
    np.testing.assert_allclose(found[:2, 0], speech[:2] / whole[:, None], rtol=1e-5)
    np.testing.assert_allclose(found[:2, 1], rest[:2] / whole[:, None], rtol=1e-5, atol=1e-7)
    assert not found[2].any()


def test_average_equals_the_mean_of_unpacked_masks():
    rng = np.random.default_rng(0)
    binary, indices = jnp.asarray(rng.random((50, 513)) < 0.4), rng.integers(0, 50, (7, 10))
    expected = np.asarray(binary)[indices].mean(1)
    packed = pack_bits(binary)
    assert packed.shape == (50, 17)
    np.testing.assert_allclose(masks.average_masks(packed, indices, 513), expected, atol=1e-6)

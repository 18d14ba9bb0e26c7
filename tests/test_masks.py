import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import masks, spectra
from blsh_jax.config import StftConfig

CONFIG = StftConfig()


def test_binary_mask_compares_magnitudes():
    speech = jnp.array([3j, 1.0, 2.0, 0.0], jnp.complex64)
    noise = jnp.array([2.0, -2.0, 2.0, 0.0], jnp.complex64)
    assert masks.ideal_binary_mask(speech, noise).tolist() == [True, False, False, False]


def test_ratio_mask_is_the_part_of_the_energy():
    speech = jnp.array([3.0, 0.0, 0.0, 5j], jnp.complex64)
    noise = jnp.array([4.0, 1.0, 0.0, 0.0], jnp.complex64)
    np.testing.assert_allclose(masks.ideal_ratio_mask(speech, noise), [0.6, 0, 0, 1], atol=1e-6)


def test_bins_below_any_voice_are_noise():
    binary = jnp.ones((2, 513), bool).at[1, 100].set(False)
    found = masks.without_rumble(binary, 50.0, CONFIG)
    assert not found[:, :4].any()  # bins of 0, 15.6, 31.2 and 46.9 Hz
    np.testing.assert_array_equal(found[:, 4:], binary[:, 4:])
    np.testing.assert_array_equal(masks.without_rumble(binary, 0.0, CONFIG), binary)


def test_oracle_masks_separate_disjoint_bands():
    time = jnp.arange(16000) / 16000
    speech, noise = jnp.sin(2 * jnp.pi * 500 * time), jnp.sin(2 * jnp.pi * 4000 * time)
    spectrum = spectra.stft(speech, CONFIG), spectra.stft(noise, CONFIG)
    mixture = spectra.stft(speech + noise, CONFIG)
    for ideal in (masks.ideal_binary_mask, masks.ideal_ratio_mask):
        estimate = spectra.istft(masks.apply_mask(ideal(*spectrum), mixture), 16000, CONFIG)
        error = jnp.sum((estimate - speech) ** 2) / jnp.sum(speech**2)
        assert float(error) < 1e-3


def test_average_equals_the_mean_of_unpacked_masks():
    key, other = jax.random.split(jax.random.key(0))
    binary = jax.random.bernoulli(key, 0.4, (50, 513))
    indices = jax.random.randint(other, (7, 10), 0, 50)
    expected = np.asarray(binary)[np.asarray(indices)].mean(1)
    packed = masks.pack_masks(binary)
    assert packed.shape == (50, 17)
    np.testing.assert_allclose(masks.average_masks(packed, indices, 513), expected, atol=1e-6)

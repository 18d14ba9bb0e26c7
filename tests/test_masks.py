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


def _sharpened(mask, mixture, sharpness):
    """A frame and a bin at a time."""
    energy, result = np.abs(mixture) ** 2, np.zeros_like(mask)
    for t in range(len(mask)):
        last = slice(max(0, t - masks.SHARE_FRAMES + 1), t + 1)
        share = np.sum((1 - mask[last]) * energy[last]) / max(np.sum(energy[last]), 1e-30)
        result[t] = mask[t] ** (sharpness * share)
    return result


def test_sharpening_takes_the_share_of_the_noise_in_the_last_frames_as_a_power():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 11, (100, 6)).astype(np.float32) / 10
    mixture = (rng.standard_normal((100, 6)) + 1j * rng.standard_normal((100, 6))).astype(
        "complex64"
    )
    mixture[:3] = 0
    mixture *= np.exp(np.sin(np.arange(100) / 9))[:, None].astype(np.float32)
    sharp, energies = masks.sharpen(jnp.asarray(mask), jnp.asarray(mixture), 3.0)
    np.testing.assert_allclose(sharp, _sharpened(mask, mixture, 3.0), rtol=2e-4, atol=1e-6)
    assert energies.shape == (100, 2)
    past = energies[20 : 20 + masks.SHARE_FRAMES - 1]
    start = 20 + masks.SHARE_FRAMES - 1
    later, _ = masks.sharpen(jnp.asarray(mask[start:]), jnp.asarray(mixture[start:]), 3.0, past)
    np.testing.assert_allclose(later, sharp[start:], rtol=1e-5)
    assert masks.sharpen(jnp.asarray(mask), jnp.asarray(mixture), 0.0)[0].tolist() == mask.tolist()

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import codes, masks, separation, spectra
from blsh_jax.config import FeatureConfig, StftConfig

STFT, FEATURES = StftConfig(), FeatureConfig()


@pytest.fixture(scope="module")
def material():
    """Frames, masks and a hasher of 60 bits."""
    keys = jax.random.split(jax.random.key(0), 3)
    frames = spectra.unit_norm(jnp.abs(jax.random.normal(keys[0], (400, 513))))
    binary = jax.random.bernoulli(keys[1], 0.4, (400, 513))
    return codes.random_hasher(keys[2], 60, frames), frames, binary


def test_a_frame_of_the_dictionary_finds_its_own_mask(material):
    hasher, frames, binary = material
    hashed = separation.build_dictionary(hasher, frames, binary)
    spectral = separation.SpectralDictionary(frames, hashed.masks, 513)
    for dictionary in (hashed, spectral):
        mask = separation.estimate_mask(dictionary, dictionary.encode(frames[:20]), 1)
        np.testing.assert_array_equal(mask, np.asarray(binary[:20], np.float32))


@pytest.mark.parametrize("num_bits", [20, 60])
def test_masks_are_the_mean_over_the_nearest_codes(material, num_bits):
    hasher, frames, binary = material
    dictionary = separation.build_dictionary(hasher, frames, binary).prefix(num_bits)
    queries = dictionary.encode(frames[:15])
    projected = np.asarray(frames) @ np.asarray(hasher.projections).T
    bits = (projected + np.asarray(hasher.biases) >= 0)[:, :num_bits]
    distances = (bits[:15, None] != bits[None]).sum(-1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :10]
    expected = np.asarray(binary)[nearest].mean(1)
    actual = separation.estimate_mask(dictionary, queries, 10)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_packed_masks_are_refused(material):
    hasher, frames, binary = material
    with pytest.raises(ValueError, match="binary_masks is uint32, packed: give bool"):
        separation.build_dictionary(hasher, frames, masks.pack_masks(binary))


def test_the_prefix_of_a_dictionary_is_the_dictionary_of_the_prefix(material):
    hasher, frames, binary = material
    short = separation.build_dictionary(hasher, frames, binary).prefix(33)
    again = separation.build_dictionary(hasher.prefix(33), frames, binary)
    for actual, expected in zip(jax.tree.leaves(short), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_separate_equals_its_steps_and_batches_equal_single_utterances(material):
    hasher, frames, binary = material
    dictionary = separation.build_dictionary(hasher, frames, binary)
    mixtures = jax.random.normal(jax.random.key(5), (3, 8000))
    together = separation.separate(mixtures, dictionary, STFT, FEATURES, 10)
    for mixture, separated in zip(mixtures, together, strict=True):
        spectrum = spectra.stft(mixture, STFT)
        queries = codes.encode(hasher, spectra.features(spectrum, FEATURES, STFT))
        mask = separation.estimate_mask(dictionary, queries, 10)
        expected = spectra.istft(masks.apply_mask(mask, spectrum), 8000, STFT)
        np.testing.assert_allclose(separated, expected, atol=1e-5)


def test_separation_compiles_once_per_shape(material):
    hasher, frames, binary = material
    dictionary = separation.build_dictionary(hasher, frames, binary)
    before = separation.separate._cache_size()
    for seed in range(3):
        mixtures = jax.random.normal(jax.random.key(seed), (2, 5000))
        separation.separate(mixtures, dictionary, STFT, FEATURES, 7)
    assert separation.separate._cache_size() == before + 1


def test_mismatched_arrays_are_refused(material):
    hasher, frames, binary = material
    with pytest.raises(ValueError, match="100 features"):
        separation.build_dictionary(hasher, frames[:, :100], binary)
    with pytest.raises(ValueError, match="binary_masks has 7 rows"):
        separation.build_dictionary(hasher, frames, binary[:7])
    dictionary = separation.build_dictionary(hasher, frames, binary)
    with pytest.raises(ValueError, match="k"):
        separation.estimate_mask(dictionary, dictionary.codes, 401)

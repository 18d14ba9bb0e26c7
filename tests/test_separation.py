"""Dictionaries and masks from nearest neighbours, against a slow search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.config import FeatureConfig, SeparationConfig, StftConfig
from blsh_jax.denoising import pipeline
from blsh_jax.paper import codes, masks, separation, spectra
from blsh_jax.robust import mask_stage
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.mask_stage import mask_function
from blsh_jax.search import packing

STFT = StftConfig(window_length=64, hop_length=16)
CONFIG = SeparationConfig(STFT, FeatureConfig())


@pytest.fixture(scope="module")
def material():
    """A hasher of 60 bits, frames and their masks."""
    rng = np.random.default_rng(0)
    frames = spectra.unit_norm(jnp.asarray(rng.random((120, 33)), jnp.float32))
    binary = jnp.asarray(rng.random((120, 33)) < 0.4)
    return codes.random_hasher(jax.random.key(2), 60, frames), frames, binary


@pytest.fixture(scope="module")
def dictionary(material):
    return separation.build_dictionary(*material)


def test_a_frame_of_the_dictionary_finds_its_own_mask(material, dictionary):
    _, frames, binary = material
    for each in (dictionary, separation.SpectralDictionary(frames, dictionary.masks, 33)):
        mask = separation.estimate_mask(each, each.encode(frames[:20]), 1)
        np.testing.assert_array_equal(mask, np.asarray(binary[:20], np.float32))


def test_masks_are_the_mean_over_the_nearest_codes(material, dictionary):
    hasher, frames, binary = material
    short = dictionary.prefix(20)
    projected = np.asarray(frames) @ np.asarray(hasher.projections).T
    bits = (projected + np.asarray(hasher.biases) >= 0)[:, :20]
    distances = (bits[:15, None] != bits[None]).sum(-1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :10]  # ties to the lowest index
    expected = np.asarray(binary)[nearest].mean(1)
    actual = separation.estimate_mask(short, short.encode(frames[:15]), 10)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_the_prefix_of_a_dictionary_is_the_dictionary_of_the_prefix(material, dictionary):
    hasher, frames, binary = material
    again = separation.build_dictionary(hasher.prefix(33), frames, binary)
    leaves = zip(jax.tree.leaves(dictionary.prefix(33)), jax.tree.leaves(again), strict=True)
    for actual, expected in leaves:
        np.testing.assert_array_equal(actual, expected)


def test_separation_equals_its_steps_and_compiles_once_per_shape(material, dictionary):
    separated = mask_function(dictionary, CONFIG)
    kept = pipeline._hear, mask_stage._at_once, pipeline._speak
    parts = pipeline._padded, *(part._jitted for part in kept), pipeline._aligned
    before = [part._cache_size() for part in parts]
    mixtures = np.random.default_rng(5).standard_normal((3, 400)).astype(np.float32)
    outputs = [pipeline.separate(m, separated, STFT) for m in (mixtures, mixtures[::-1].copy())]
    assert [part._cache_size() for part in parts] == [size + 1 for size in before]
    np.testing.assert_allclose(outputs[1].speech[::-1], outputs[0].speech, atol=1e-6)
    spectrum = spectra.stft(jnp.asarray(mixtures), STFT)
    frames = spectra.features(feature_function(CONFIG.features, STFT), spectrum)
    queries = codes.encode(material[0], frames.reshape(-1, 33))
    mask = separation.estimate_mask(dictionary, queries, 10).reshape(spectrum.shape)
    expected = spectra.istft(masks.apply_mask(mask, spectrum), 400, STFT)
    np.testing.assert_allclose(outputs[0].mask[:, : mask.shape[1]], mask, atol=1e-6)
    np.testing.assert_allclose(outputs[0].speech, expected, atol=1e-5)


def test_mismatched_arrays_are_refused(material, dictionary):
    hasher, frames, binary = material
    with pytest.raises(ValueError, match="10 features"):
        separation.build_dictionary(hasher, frames[:, :10], binary)
    with pytest.raises(ValueError, match="binary_masks has 7 rows"):
        separation.build_dictionary(hasher, frames, binary[:7])
    with pytest.raises(ValueError, match="binary_masks is uint32, packed: give bool"):
        separation.build_dictionary(hasher, frames, packing.pack_bits(binary))
    with pytest.raises(ValueError, match="k"):
        separation.estimate_mask(dictionary, dictionary.codes, 121)

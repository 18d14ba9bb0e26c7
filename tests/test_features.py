"""Features in place of the recipe's."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_models import SMALL_GENERAL

from blsh_jax import similarity, spectra
from blsh_jax.config import FeatureConfig, StftConfig
from blsh_jax.training import FrameSample
from experiments import features, validation

SMALL = dataclasses.replace(SMALL_GENERAL, max_fit_frames=200, max_dictionary_frames=200)
STFT, FEATURES = StftConfig(), FeatureConfig(levels=6, floor_frames=8, voicing=4)


@pytest.fixture(scope="module")
def spectrum():
    rng = np.random.default_rng(0)
    return spectra.stft(jnp.asarray(rng.standard_normal((2, 9000)), jnp.float32), STFT)


@pytest.fixture(scope="module")
def frames(spectrum):
    return np.asarray(spectra.features(spectrum, FEATURES, STFT))


def parts(vectors):
    """Spectrum, levels and voicing of vectors, the spectrum of norm 1."""
    count = vectors.shape[-1] - 6 - 4
    vectors = np.asarray(vectors) / np.linalg.norm(vectors[..., :count], axis=-1, keepdims=True)
    return np.split(vectors, [count, count + 6], axis=-1)


@pytest.mark.parametrize("kind", ["magnitude", "mel"])
def test_compressed_spectra_are_powers_and_leave_the_rest(spectrum, frames, kind):
    found = parts(features.compressed(kind)(spectrum, FEATURES, STFT))
    linear = np.abs(np.asarray(spectrum))
    if kind == "mel":
        linear = linear @ spectra.mel_filters(FEATURES.num_mels, STFT)
    expected = linear**0.3 / np.linalg.norm(linear**0.3, axis=-1, keepdims=True)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    for part, same in zip(found[1:], parts(frames)[1:], strict=True):
        np.testing.assert_allclose(part, same, atol=1e-5)


def test_floors_are_of_the_frames_that_they_name():
    bands = np.random.default_rng(0).random((2, 20, 3)).astype(np.float32) + 0.1
    past = np.asarray(features.quantile_of_past(jnp.asarray(bands), 8))
    around = np.asarray(features.least_around(jnp.asarray(bands), 8))
    for t in range(7, 20):
        expected = np.quantile(bands[:, t - 7 : t + 1], 0.1, axis=1)
        np.testing.assert_allclose(past[:, t], expected, atol=1e-6)
    for t in range(20):
        expected = bands[:, max(t - 4, 0) : t + 4].min(axis=1)
        np.testing.assert_array_equal(around[:, t], expected)


def test_levels_above_the_least_of_the_past_are_the_recipes(spectrum, frames):
    least_of_past = lambda bands, count: jnp.min(features._windows(bands, count, count - 1), axis=0)
    found = features.above(least_of_past)(spectrum, FEATURES, STFT)
    known = slice(8 + 3, -3)  # no silence within reach, and a whole window
    np.testing.assert_allclose(found[:, known], frames[:, known], atol=1e-5)
    other = features.above(features.least_around)(spectrum, FEATURES, STFT)
    assert np.abs(np.asarray(other) - frames)[:, known].max() > 0.1


def test_levels_relative_to_their_mean_keep_their_differences(spectrum):
    bands = spectra.level_bands(spectrum, FEATURES, STFT)
    past = jnp.zeros((2, spectra.num_past_frames(FEATURES, STFT), 6))
    levels = np.asarray(
        spectra.levels_above_floor(jnp.concatenate([past, bands], axis=-2), FEATURES, STFT)
    )
    relative = levels - levels.mean(axis=1, keepdims=True)
    expected = relative / np.linalg.norm(relative, axis=-1, keepdims=True)
    found = parts(features.relative_to_mean(spectrum, FEATURES, STFT))[1]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_components_hold_the_variance_or_foretell_the_target(monkeypatch):
    monkeypatch.setattr(features, "_NUM_REDUCED", 5)
    rng = np.random.default_rng(0)
    frames = (rng.standard_normal((400, 20)) * np.arange(1, 21)).astype(np.float32)
    shares = np.square(frames[:, :12] / np.arange(1, 13) + 0.3 * rng.standard_normal((400, 12)))
    sample = FrameSample(frames, None, shares.reshape(400, 2, 6).astype(np.float16), None, 400)
    centered = sample.frames - sample.frames.mean(axis=0)
    variance, left = [], []
    target = np.sqrt(sample.shares.astype(np.float64)).reshape(len(centered), -1)
    target -= target.mean(axis=0)
    for axes_of in (features.principal_components, features.foretelling_components):
        reduced = centered @ axes_of(sample)
        basis = np.linalg.qr(axes_of(sample))[0]
        variance.append(np.square(centered @ basis).sum())
        slopes = np.linalg.lstsq(reduced, target, rcond=None)[0]
        left.append(np.square(target - reduced @ slopes).sum())
    first = np.square(np.linalg.svd(centered, compute_uv=False))[:5].sum()
    assert variance[0] == pytest.approx(first, rel=1e-4) and variance[1] < first
    assert left[1] < left[0] < np.square(target).sum()


def test_kernels_are_those_of_the_similarity_between_frames(frames):
    vectors = frames[0, :30]
    found = np.asarray(features.kernels(vectors[:7])(jnp.asarray(vectors)))
    expected = np.asarray(similarity.self_similarity(jnp.asarray(vectors), "rbf"))[:, :7]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_mapped_frames_are_centered_and_of_norm_one(frames):
    sample = FrameSample(frames[0], None, None, None, len(frames[0]))
    raw = features.kernels(frames[0, :7])
    mapped = np.asarray(features._centered(raw, sample)(jnp.asarray(frames)))
    values = np.asarray(raw(jnp.asarray(frames)), np.float64)
    moved = values - values[0].mean(axis=0)
    expected = moved / np.linalg.norm(moved, axis=-1, keepdims=True)
    np.testing.assert_allclose(mapped, expected, atol=1e-4)


def test_every_kind_of_features_is_scored(synthetic, monkeypatch):
    group = validation.left_out_in_turn(*synthetic, num_groups=2, num_mixtures=2)[0]
    kept = "floor: tenth percentile of the past", "64 components that foretell speech and noise"
    for kinds, name in zip(("_EXTRACTS", "_MAPS"), kept, strict=True):  # the code is the same
        monkeypatch.setattr(features, kinds, {name: getattr(features, kinds)[name]})
    rows = features.features(group, SMALL, [12])
    assert [row["features"] for row in rows] == [*features._EXTRACTS, *features._MAPS]
    size = spectra.num_features(SMALL.features, SMALL.stft)
    assert [row["num_features"] for row in rows] == [size, 64]
    assert np.isfinite([[row["sdr"], row["si_sdr"]] for row in rows]).all()
    assert rows[0]["sdr"] != rows[1]["sdr"]


def test_features_without_levels_are_refused(synthetic):
    group = validation.left_out_in_turn(*synthetic, num_groups=2, num_mixtures=2)[0]
    config = dataclasses.replace(SMALL, features=dataclasses.replace(SMALL.features, levels=0))
    with pytest.raises(ValueError, match="levels is 0"):
        features.features(group, config, [12])

import dataclasses

import jax
import numpy as np
import pytest

from blsh_jax import config, corpora, training
from blsh_jax.paper import codes, masks, spectra
from blsh_jax.paper.spectra import SpectralFeatures
from blsh_jax.robust.band_shares import band_shares
from blsh_jax.search import packing

USED = config.SeparationConfig()
FEATURES = SpectralFeatures(USED.features, USED.stft)


@pytest.fixture(scope="module")
def few_mixtures(synthetic):
    """Six mixtures of the synthetic corpus."""
    return corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.2, max_mixtures=6)


def frames_and_shares(mixture):
    """(T, D + Wf) frames with their packed masks beside, and (T, 2, C) shares of one mixture."""
    speech, noise = (spectra.stft(part, USED.stft) for part in mixture[:2])
    binary = masks.ideal_binary_mask(speech, noise)
    frames = [spectra.features(FEATURES, speech + noise), packing.pack_bits(binary)]
    filters = spectra.mel_filters(64, USED.stft).astype(np.float32)
    shares = band_shares(binary, speech + noise, filters)
    return np.concatenate([np.asarray(part) for part in frames], axis=1), np.asarray(shares)


def test_all_frames_are_drawn_once_each(few_mixtures):
    settings = config.TrainConfig(dictionary_fraction=1.0)
    sample = training.sample_frames(few_mixtures, settings)
    assert len(sample.frames) == len(sample.masks) == sample.num_seen
    expected = np.concatenate([frames_and_shares(mixture)[0] for mixture in few_mixtures])
    expected = expected[np.abs(expected[:, :513]).max(1) > 0]
    assert len(expected) == sample.num_seen
    order, drawn = (np.lexsort(np.round(f[:, 40:60].T, 3)) for f in (expected, sample.frames))
    np.testing.assert_allclose(sample.frames[drawn], expected[order][:, :513], atol=2e-3)


def test_the_fraction_and_the_seed_decide_the_draw(few_mixtures):
    settings = config.TrainConfig(dictionary_fraction=0.25)
    first, again = (training.sample_frames(few_mixtures, settings) for _ in range(2))
    np.testing.assert_array_equal(first.frames, again.frames)
    other = training.sample_frames(few_mixtures, dataclasses.replace(settings, seed=1))
    assert abs(len(first.frames) / first.num_seen - 0.25) < 0.05
    assert not np.array_equal(first.frames[:50], other.frames[:50])
    np.testing.assert_allclose(np.linalg.norm(first.frames, axis=1), 1, atol=1e-5)


def test_shares_and_mixtures_belong_to_the_frames(few_mixtures):
    settings = config.TrainConfig(dictionary_fraction=0.1)
    sample = training.sample_frames(few_mixtures, settings)
    np.testing.assert_allclose(sample.shares.astype(np.float64).sum((1, 2)), 1, atol=5e-3)
    assert set(sample.mixtures) == set(range(len(few_mixtures)))
    for index, mixture in enumerate(few_mixtures):
        frames, shares = frames_and_shares(mixture)
        for row in np.flatnonzero(sample.mixtures == index)[:5]:
            distances = np.abs(frames[:, :513] - sample.frames[row]).max(1)
            found = distances.argmin()
            assert distances[found] < 2e-3
            np.testing.assert_allclose(shares[found], sample.shares[row], atol=2e-3)


def test_a_dictionary_keeps_no_more_frames_than_asked(few_mixtures):
    settings = config.TrainConfig(
        fit=config.FitConfig(num_bits=3, block_size=200, fast_steps=10), dictionary_fraction=0.3
    )
    sample = training.sample_frames(few_mixtures, settings)
    whole, _ = training.learn(sample, settings, {})
    settings = dataclasses.replace(settings, max_dictionary_frames=20)
    some, _ = training.learn(sample, settings, {})
    np.testing.assert_array_equal(some.hasher.projections, whole.hasher.projections)
    np.testing.assert_array_equal(some.dictionary.codes, whole.dictionary.codes[:20])
    np.testing.assert_array_equal(some.dictionary.masks, whole.dictionary.masks[:20])
    assert some.frames.shape == (20, 513) and some.provenance["dictionary_frames"] == 20
    assert some.provenance["fit_frames"] == whole.dictionary.num_frames


def test_nothing_drawn_is_said(few_mixtures):
    with pytest.raises(ValueError, match="dictionary_fraction"):
        training.sample_frames(few_mixtures, config.TrainConfig(dictionary_fraction=1e-9))


def test_a_dictionary_smaller_than_its_neighbours_is_refused(few_mixtures):
    sample = training.sample_frames(few_mixtures, config.TrainConfig())
    settings = config.TrainConfig(max_dictionary_frames=9)
    with pytest.raises(ValueError, match="9 frames, fewer than num_neighbors 10"):
        training.learn(sample, settings, {})


def test_the_model_holds_codes_of_its_own_frames(trained):
    model, info = trained
    assert model.hasher.num_bits == len(info.objective) == 50
    assert model.provenance["dictionary_frames"] == model.dictionary.num_frames
    encoded = codes.encode(model.hasher, model.spectral_dictionary().frames)
    differing = packing.unpack_bits(encoded ^ model.dictionary.codes, 50)
    # Frames are kept in half precision: a bit may differ only next to its hyperplane.
    assert float(differing.mean()) < 2e-3


def test_all_frames_are_hashed(few_mixtures, trained):
    model, _ = trained
    other = codes.random_hasher(jax.random.key(0), 40, model.spectral_dictionary().frames)
    found, packed = training.hash_frames(few_mixtures, [model.hasher, other], model.config)
    everything = dataclasses.replace(model.config, dictionary_fraction=1.0)
    sample = training.sample_frames(few_mixtures, everything)
    assert len(packed) == len(found[0]) == len(found[1]) == sample.num_seen
    for hasher, ours in zip((model.hasher, other), found, strict=True):
        expected = np.asarray(codes.encode(hasher, sample.frames))
        pairs = [
            np.concatenate(pair, axis=1) for pair in ((ours, packed), (expected, sample.masks))
        ]
        ours, theirs = ({row.tobytes() for row in pair} for pair in pairs)
        assert len(ours & theirs) > 0.999 * len(theirs)

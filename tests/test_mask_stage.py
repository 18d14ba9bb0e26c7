"""Learned mask stages: in streams, in model files, and learned on mixtures of other noises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import config, corpora, models, training
from blsh_jax.denoising import pipeline
from blsh_jax.denoising.stream import Stream
from blsh_jax.paper import codes, spectra
from blsh_jax.paper.separation import NeighborMask
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.mask_stage import FernMask, mask_function, phase_sensitive_mask
from blsh_jax.robust.speech_presence import PresenceMask
from blsh_jax.training import mask_stage, recipe

SETTINGS = config.TrainConfig(
    separation=config.SeparationConfig(
        features=config.FeatureConfig("log_mel", 40, levels=8, pre_roll_frames=4),
        num_neighbors=5,
        speech_presence=config.RECIPES["general"].separation.speech_presence,
    ),
    ferns=config.FernConfig(
        num_ferns=30, fern_bits=4, fern_rate=0.3, fern_samples=3000, fern_mixtures=15, fern_bins=300
    ),
    augmentation=config.AugmentationConfig(
        num_mixtures=16, mixture_seconds=1.0, unaugmented=0.0, noise_folds=2
    ),
    dictionary_fraction=0.5,
)
STFT = SETTINGS.separation.stft
RATE = STFT.sample_rate  # samples of a mixture, too


@pytest.fixture(scope="module")
def mixtures(synthetic):
    return training_mixtures(*synthetic, SETTINGS)


@pytest.fixture(scope="module")
def model(mixtures):
    """Ferns over hash functions drawn at random, which take no time to learn."""

    def fit(frames, *_, **__):
        return codes.random_hasher(jax.random.key(0), 24, jnp.asarray(frames)), None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "fit", fit)
        return training.train(mixtures, SETTINGS, {})[0]


def masks_of(model, mixtures):
    """Masks (U, T, F), and the best ones."""
    speech, noise = (np.stack([mixture[i] for mixture in mixtures]) for i in (0, 1))
    pre_roll = model.separation.features.pre_roll_frames
    found = pipeline.separate(speech + noise, model.mask_function, STFT, pre_roll).mask
    spoken, rest = (spectra.stft(jnp.asarray(part), STFT) for part in (speech, noise))
    mixture = spoken + rest
    frames = mixture.shape[1]
    return found[:, :frames], phase_sensitive_mask(spoken, mixture), jnp.abs(mixture) ** 2


def test_what_is_learned_is_nearer_to_the_best_mask_than_the_formula_is(model, synthetic):
    others = dataclasses.replace(SETTINGS, seed=5)
    unheard = training_mixtures(*synthetic, others, "closed")[:6]
    errors = []
    for used in (model, dataclasses.replace(model, ferns=None)):
        mask, best, energy = masks_of(used, unheard)
        errors.append(float(jnp.sum(energy * (mask - best) ** 2) / jnp.sum(energy)))
    assert errors[0] < 0.8 * errors[1]


def test_a_fold_is_searched_in_frames_of_the_others(model, mixtures, synthetic, monkeypatch):
    rng, searched = np.random.default_rng(0), []
    sources = rng.integers(0, 16, model.dictionary.num_frames).astype(np.int32)
    rows = jnp.arange(len(sources), dtype=jnp.uint32)[:, None]
    numbered = dataclasses.replace(model.dictionary, codes=rows, masks=rows)
    few = config.FernConfig(num_ferns=1, fern_bits=1, fern_mixtures=7)

    def drawn(mixtures, dictionary, *_):
        np.testing.assert_array_equal(dictionary.codes, dictionary.masks)
        searched.append((mixtures, sources[np.asarray(dictionary.codes)[:, 0]]))
        return [(rng.integers(0, 256, (39, 5)).astype(np.uint8), *np.ones((2, 5), np.float32))]

    monkeypatch.setattr(mask_stage, "_drawn", drawn)
    mask_stage.learn_ferns(mixtures, sources, numbered, dataclasses.replace(SETTINGS, ferns=few))
    assert [len(found) for found, _ in searched] == [4, 3]
    keys = [recording.key for recording in synthetic[1].recordings]
    for fold, (found, known) in enumerate(searched):
        noises = {key for mixture in found for key in mixture.noise_key.split("+")}
        assert noises <= set(keys[fold::2])
        assert len(known) > 100 and set(known % 2) == {1 - fold}
    made = [mixture.mixture for found, _ in searched for mixture in found]
    assert not any(np.array_equal(one, other.mixture) for one in made for other in mixtures[:16])


def test_ferns_without_folds_or_augmentation_are_refused(model, mixtures, synthetic):
    whole = dataclasses.replace(SETTINGS.augmentation, noise_folds=1)
    with pytest.raises(ValueError, match="noise_folds is 1: ferns need 2 or more"):
        training.train(mixtures, dataclasses.replace(SETTINGS, augmentation=whole), {})
    of_one_fold = np.zeros(model.dictionary.num_frames, np.int32)
    with pytest.raises(ValueError, match="without a fold of noises 0 dictionary frames are left"):
        mask_stage.learn_ferns(mixtures, of_one_fold, model.dictionary, SETTINGS)
    plain = corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.2, max_mixtures=2)
    with pytest.raises(ValueError, match="augmented mixtures: give num_mixtures"):
        training.train(plain, SETTINGS, {})


def test_a_model_with_ferns_is_saved_whole(model, tmp_path):
    assert model.ferns.tables.shape == (30, 16)
    models.save(model, tmp_path / "m.npz")
    loaded = models.load(tmp_path / "m.npz")
    assert loaded.config == model.config
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_a_stream_with_ferns_is_the_whole_signal(model):
    envelope = np.maximum(0, np.sin(np.arange(5000) / 700))  # with digital silence
    noisy = (0.2 * np.random.default_rng(0).standard_normal(5000) * envelope).astype(np.float32)
    pre_roll = model.separation.features.pre_roll_frames
    padded = np.zeros((6, RATE), np.float32)  # of the shape that is compiled already
    padded[0, :5000] = noisy
    whole = pipeline.separate(padded, model.mask_function, STFT, pre_roll).speech[0, :5000]
    streamed = Stream(model)
    parts = [streamed.feed(piece) for piece in np.split(noisy, [1000, 1001, 4000])]
    found = np.concatenate([*parts, streamed.flush()])
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert np.abs(found).max() > 1e-3


def test_without_ferns_the_formula_is_the_mask_stage(model):
    dictionary, used = model.dictionary, model.separation
    neighbors = NeighborMask(dictionary, feature_function(used.features, STFT), 5)
    assert mask_function(dictionary, used) == PresenceMask(neighbors, used.speech_presence, STFT)
    published = dataclasses.replace(used, speech_presence=config.MASK_ALONE)
    assert mask_function(dictionary, published) == neighbors
    with_ferns = mask_function(dictionary, used, model.ferns)
    assert isinstance(with_ferns, FernMask) and with_ferns.look_ahead == neighbors.look_ahead


def test_the_phase_sensitive_mask_projects_speech_onto_the_mixture():
    rng = np.random.default_rng(0)
    speech, mixture = (rng.standard_normal((2, 4, 9)) + 1j * rng.standard_normal((2, 4, 9))) * 2
    mixture[0, :5] = speech[1, 3:5] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(speech) / np.abs(mixture) * np.cos(np.angle(speech) - np.angle(mixture))
    expected = np.clip(np.where(mixture == 0, 0, ratio), 0, 1)
    found = phase_sensitive_mask(*(jnp.asarray(x, jnp.complex64) for x in (speech, mixture)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32 and {0.0, 1.0} < set(np.ravel(found).tolist())

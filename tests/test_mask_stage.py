"""Learned mask stages: in streams, in model files, and learned on mixtures of other noises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import trained_over_random

from blsh_jax import config, corpora, models, training
from blsh_jax.denoising import pipeline
from blsh_jax.denoising.stream import Stream
from blsh_jax.evaluation.systems import OracleMask
from blsh_jax.paper import spectra
from blsh_jax.paper.separation import NeighborMask, SpectralDictionary
from blsh_jax.robust import ferns
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.robust.bin_features import bin_features
from blsh_jax.robust.bin_features import nothing_heard as bin_past
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.mask_stage import (
    LOOK_AHEAD,
    DecisiveMask,
    FernMask,
    mask_function,
    phase_sensitive_mask,
)
from blsh_jax.robust.speech_presence import PresenceMask
from blsh_jax.training import mask_stage

SETTINGS = config.TrainConfig(
    separation=config.SeparationConfig(
        features=config.FeatureConfig("log_mel", 40, levels=8, pre_roll_frames=4),
        num_neighbors=5,
        speech_presence=config.RECIPES["general"].separation.speech_presence,
    ),
    ferns=config.FernConfig(
        *(30, 20),
        fern_bits=4,
        fern_rate=0.3,
        fern_samples=30_000,
        fern_mixtures=24,
        fern_bins=1000,
        fern_max_snr_db=6.0,
        fern_alone=0.0,
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
    return trained_over_random(mixtures, SETTINGS)


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
    for used in (model, model.without_look_ahead(), dataclasses.replace(model, ferns=())):
        mask, best, energy = masks_of(used, unheard)
        errors.append(float(jnp.sum(energy * (mask - best) ** 2) / jnp.sum(energy)))
    assert errors[0] < 0.97 * errors[1] and errors[1] < 0.8 * errors[2]


def test_a_fold_is_searched_in_frames_of_the_others(model, mixtures, synthetic, monkeypatch):
    rng, given, searched = np.random.default_rng(0), [], []
    batches = corpora.batches
    sources = rng.integers(0, 16, model.dictionary.num_frames).astype(np.int32)
    rows = jnp.arange(len(sources), dtype=jnp.uint32)[:, None]
    numbered = dataclasses.replace(model.dictionary, codes=rows, masks=rows)
    few = config.FernConfig(1, 1, fern_bits=1, fern_mixtures=7, fern_max_snr_db=12.0)

    def noted(some, size):
        given.append(list(some))
        return batches(some, size)

    def drawn(batch, function, *_):
        stage = int(function.ahead > 0)
        dictionary = (function.inner.inner if stage else function.inner).dictionary
        np.testing.assert_array_equal(dictionary.codes, dictionary.masks)
        searched.append((stage, given[-1], sources[np.asarray(dictionary.codes)[:, 0]]))
        for row, mixture in enumerate(given[-1]):
            np.testing.assert_array_equal(batch.mixture[row], mixture.mixture)
        values = rng.integers(0, 256, (40 * (1 + stage), 5)).astype(np.uint8)
        return [(values, *np.ones((2, 5), np.float32))]

    monkeypatch.setattr(corpora, "batches", noted)
    monkeypatch.setattr(mask_stage, "_drawn", drawn)
    settings = dataclasses.replace(SETTINGS, ferns=few)
    learned = mask_stage.learn_ferns(mixtures, sources, numbered, settings)
    assert [stage.tables.shape for stage in learned] == [(1, 2), (1, 2)]
    assert [(stage, len(found)) for stage, found, _ in searched] == [(0, 4), (0, 3), (1, 4), (1, 3)]
    keys = [recording.key for recording in synthetic[1].recordings]
    for turn, (_, found, known) in enumerate(searched):
        noises = {key for mixture in found for key in mixture.noise_key.split("+")}
        assert noises <= set(keys[turn % 2 :: 2])
        assert len(known) > 100 and set(known % 2) == {1 - turn % 2}
    made = [mixture.mixture for _, found, _ in searched for mixture in found]
    assert len({mixture.tobytes() for mixture in made}) == len(made)
    assert not any(np.array_equal(one, other.mixture) for one in made for other in mixtures[:16])


def test_mixtures_of_speech_or_noise_alone_are_among_those_for_ferns(synthetic):
    often = dataclasses.replace(SETTINGS.augmentation, num_mixtures=40, alone=0.5)
    made = training_mixtures(*synthetic, dataclasses.replace(SETTINGS, augmentation=often))
    snrs = np.array([20 * np.log10(np.std(m.speech) / np.std(m.noise)) for m in made])
    assert np.sum(snrs > 59) > 5 and np.sum(snrs < -59) > 5 and np.sum(np.abs(snrs) < 7) > 10


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
    assert [stage.tables.shape for stage in model.ferns] == [(30, 16), (20, 16)]
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
    at_once, in_parts = Stream(model), Stream(model, channels=2, hops=4)
    for streamed, given in ((at_once, noisy), *[(in_parts, np.stack([noisy, noisy / 2]))] * 2):
        pieces = np.split(given, [1000, 1001, 4000], axis=-1)
        parts = [streamed.feed(piece) for piece in pieces]
        assert parts[1].shape[-1] == 0 and (streamed is at_once or parts[2].shape[-1] < 3000)
        found = np.concatenate([*parts, streamed.flush()], axis=-1)
        assert found.shape == given.shape and np.abs(found).max() > 1e-3
        np.testing.assert_allclose(np.atleast_2d(found)[0], whole, atol=1e-6)
    np.testing.assert_allclose(found[1], whole / 2, atol=1e-6)


def test_without_ferns_the_formula_is_the_mask_stage(model):
    dictionary, used = model.dictionary, model.separation
    neighbors = NeighborMask(dictionary, feature_function(used.features, STFT), 5)
    assert mask_function(dictionary, used) == PresenceMask(neighbors, used.speech_presence, STFT)
    decisive = dataclasses.replace(used, decisiveness=2.0)
    assert mask_function(dictionary, decisive) == DecisiveMask(mask_function(dictionary, used), 2.0)
    published = dataclasses.replace(used, speech_presence=config.MASK_ALONE)
    assert mask_function(dictionary, published) == neighbors
    first = mask_function(dictionary, used, model.ferns[:1])
    assert isinstance(first, FernMask) and first.look_ahead == neighbors.look_ahead
    assert model.without_look_ahead().mask_function == first
    assert model.mask_function.look_ahead == neighbors.look_ahead + LOOK_AHEAD


def test_a_later_stage_looks_ahead_of_an_inner_one_that_does(model):
    """Causal masks, those of an inner function that looks ahead, and of both, agree in time."""
    used = dataclasses.replace(model.separation, features=config.FeatureConfig(context=3))
    rng = np.random.default_rng(0)
    newest = jnp.asarray(rng.standard_normal((1, 12, STFT.num_bins)) + 0j, jnp.complex64)
    frames = jnp.asarray(rng.random((50, 3 * STFT.num_bins)), jnp.float32)
    known = SpectralDictionary(
        frames, jnp.asarray(rng.integers(0, 2**32, (50, 17)), jnp.uint32), 513
    )
    inner = mask_function(known, used, model.ferns[:1])
    outer = mask_function(known, used, model.ferns)
    assert (inner.look_ahead, outer.look_ahead) == (1, 1 + LOOK_AHEAD)
    (_, first), (_, second) = (
        dataclasses.replace(stage, ferns=None).features(stage.init((1,)), newest)
        for stage in (inner, outer)
    )
    mask = jax.nn.sigmoid(ferns.score(model.ferns[0], first))
    _, again = bin_features(
        bin_past((1, 513)),
        mask,
        jnp.pad(newest, ((0, 0), (1, 0), (0, 0)))[:, :12],
        used.speech_presence,
        STFT,
    )
    np.testing.assert_array_equal(second[40:], again)
    np.testing.assert_array_equal(second[:40, :, LOOK_AHEAD:], again[:, :, :-LOOK_AHEAD])


@pytest.fixture(scope="module")
def decided():
    """Masks of clean speech, of a mixture, of noise and of speech that sets in; and spectra."""
    rng = np.random.default_rng(0)
    means = np.repeat([0.999, 0.6, 0.02, 0.6], [40, 40, 120, 40])[:, None]
    ideal = np.clip(means + 0.002 * rng.standard_normal((240, 9)), 0, 1)[None].astype(np.float32)
    mixture = (rng.standard_normal((1, 240, 9)) + 1j * rng.standard_normal((1, 240, 9))) * 3
    mixture[:, 100:103] = 0  # digital silence
    return ideal, mixture.astype(np.complex64)


def decide(ideal, mixture, weight=2.0, blocks=1):
    function = DecisiveMask(OracleMask(jnp.asarray(ideal)), weight)
    state, masks = function.init((1,)), []
    for block in np.split(mixture, blocks, axis=1):
        state, mask = function(state, jnp.asarray(block), jnp.asarray(block))
        masks.append(mask)
    return np.concatenate(masks, axis=1)


def test_decisive_masks_pass_clean_speech_and_silence_noise(decided):
    ideal, mixture = decided
    found = decide(ideal, mixture)
    kept = taken = 0.0
    for frame in range(240):  # as the formula stands
        energy = np.abs(mixture[0, frame].astype(complex)) ** 2
        parts = np.sum(ideal[0, frame] * energy), np.sum((1 - ideal[0, frame]) * energy)
        kept, taken = 0.98 * kept + parts[0], 0.98 * taken + parts[1]
        late = np.clip(np.log(kept / taken), -6, 6)
        now = np.clip(np.log(parts[0] / parts[1]), -6, 6) if sum(parts) else 0.0
        shift = 2 * (max(late - 4, 0) - max(-2 - max(late, now), 0))
        with np.errstate(divide="ignore"):
            odds = ideal[0, frame] / (1 - ideal[0, frame].astype(float)) * np.exp(shift)
        expected = np.where(np.isinf(odds), 1, odds / (1 + np.where(np.isinf(odds), 0, odds)))
        np.testing.assert_allclose(found[0, frame], expected, rtol=2e-3, atol=1e-6)
    apart = found - ideal
    assert np.all(apart[0, :40] >= 0) and apart[0, :40].max() > 1e-3
    assert np.all(apart[0, 45:80] == 0) and np.all(apart[0, 200:] == 0)  # mixtures stay
    assert np.all(apart[0, 190:200] < -0.005)


def test_decisive_masks_are_equal_in_streams_and_at_any_level(decided):
    ideal, mixture = decided
    whole = decide(ideal, mixture)
    np.testing.assert_allclose(decide(ideal, mixture, blocks=30), whole, atol=1e-6)
    for gain in (1e-15, 1e12):
        np.testing.assert_allclose(decide(ideal, mixture * np.float32(gain)), whole, atol=1e-5)
    np.testing.assert_allclose(decide(ideal, mixture, weight=0.0), ideal, atol=1e-6)


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

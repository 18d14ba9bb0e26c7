"""Fine-tuning on one's own noise: what is added, that it helps, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import trained_over_random

from blsh_jax import config, corpora, models, training
from blsh_jax.config import AdaptationConfig
from blsh_jax.denoising import pipeline
from blsh_jax.paper import spectra
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.robust.mask_stage import phase_sensitive_mask

SETTINGS = config.TrainConfig(
    separation=config.SeparationConfig(
        features=config.FeatureConfig("log_mel", 40, levels=8, pre_roll_frames=4),
        num_neighbors=5,
        speech_presence=config.RECIPES["general"].separation.speech_presence,
    ),
    ferns=config.FernConfig(10, 5, fern_bits=4, fern_rate=0.3, fern_mixtures=8, fern_bins=500),
    augmentation=config.AugmentationConfig(
        num_mixtures=8, mixture_seconds=1.0, unaugmented=0.0, noise_folds=2
    ),
    dictionary_fraction=0.5,
)
FEW = AdaptationConfig(num_mixtures=12, fern_mixtures=16, num_ferns=12, synthetic_noise=0.0)
STFT = SETTINGS.separation.stft
RATE = STFT.sample_rate


@pytest.fixture(scope="module")
def speech(synthetic):
    """Half a minute and more."""
    return [np.concatenate([*synthetic[0].signals] * 4)[: 40 * RATE]]


@pytest.fixture(scope="module")
def model(synthetic):
    return trained_over_random(training_mixtures(*synthetic, SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def hum():
    """A noise that the model has not heard: a chord that swells."""
    time = np.arange(24 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * 97 * step * time) for step in range(3, 40, 3))
    rng = np.random.default_rng(0)
    signal = 0.03 * chord * (1.2 + np.sin(2 * np.pi * 0.7 * time))
    return (signal + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def adapted(model, hum, speech):
    return training.adapt(model, [hum[: 16 * RATE]], speech, FEW)


def error(model, mixtures):
    """Of masks, weighted by energy."""
    spoken, noise = (np.stack([mixture[i] for mixture in mixtures]) for i in (0, 1))
    pre_roll = model.separation.features.pre_roll_frames
    found = pipeline.separate(spoken + noise, model.mask_function, STFT, pre_roll).mask
    parts = [spectra.stft(jnp.asarray(part), STFT) for part in (spoken, noise)]
    best = phase_sensitive_mask(parts[0], parts[0] + parts[1])
    energy = jnp.abs(parts[0] + parts[1]) ** 2
    return float(jnp.sum(energy * (found[:, : best.shape[1]] - best) ** 2) / jnp.sum(energy))


def test_an_adapted_model_makes_better_masks_in_the_rest_of_the_noise(
    model, adapted, hum, synthetic
):
    held_back = corpora.Loaded([hum[16 * RATE :]], (corpora.Recording("hum"),))
    mixtures = corpora.make_mixtures(synthetic[0], held_back, 0.0, 0, max_mixtures=6)
    length = min(map(len, (mixture.speech for mixture in mixtures)))
    mixtures = [(mixture.speech[:length], mixture.noise[:length]) for mixture in mixtures]
    assert error(adapted, mixtures) < 0.8 * error(model, mixtures)


def test_what_the_model_was_is_still_in_it(model, adapted, tmp_path):
    added = round(FEW.dictionary_growth * model.dictionary.num_frames)
    assert adapted.dictionary.num_frames == model.dictionary.num_frames + added
    for name in ("codes", "masks"):
        before, after = (getattr(each.dictionary, name) for each in (model, adapted))
        np.testing.assert_array_equal(after[: len(before)], before)
    assert adapted.hasher is model.hasher
    assert adapted.config.ferns.stages == (22, 17)
    for before, after in zip(model.ferns, adapted.ferns, strict=True):
        kept = after.prefix(len(before.tables))
        jax.tree.map(np.testing.assert_array_equal, kept, before)
    assert adapted.provenance["adapted"]["noise_seconds"] == 16.0
    models.save(adapted, tmp_path / "mine.npz")
    jax.tree.map(np.testing.assert_array_equal, models.load(tmp_path / "mine.npz"), adapted)


def test_a_model_without_ferns_gets_frames_alone(model, hum, speech):
    plain = dataclasses.replace(
        model, ferns=(), config=dataclasses.replace(model.config, ferns=config.FernConfig())
    )
    adapted = training.adapt(plain, [hum], speech, FEW)
    assert adapted.ferns == () and adapted.config == plain.config
    assert adapted.dictionary.num_frames > model.dictionary.num_frames


def test_too_little_and_wrong_arrays_are_refused(model, hum, speech):
    with pytest.raises(ValueError, match=r"9\.0 s of noise: give 10 s at least"):
        training.adapt(model, [hum[: 5 * RATE], hum[: 4 * RATE]], speech, FEW)
    with pytest.raises(ValueError, match=r"29\.0 s of speech: give 30 s at least"):
        training.adapt(model, [hum], [speech[0][: 29 * RATE]], FEW)
    pauses = np.concatenate([speech[0][: 8 * RATE], 1e-4 * hum, 1e-4 * hum])
    with pytest.raises(ValueError, match=r"8\.0 s of speech"):
        training.adapt(model, [hum], [pauses], FEW)
    for wrong in (hum[None], np.full(len(hum), np.nan)):
        with pytest.raises(ValueError, match=r"noise: give arrays \(samples,\) of finite numbers"):
            training.adapt(model, [wrong], speech, FEW)

"""Quick to make: models over random frames, and a recipe that learns little."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import config, training
from blsh_jax.models import Model
from blsh_jax.paper import codes, separation, spectra
from blsh_jax.robust.bin_features import NUM_FEATURES
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns
from blsh_jax.training import recipe

GENERAL = config.RECIPES["general"]
SMALL_GENERAL = dataclasses.replace(
    GENERAL,
    separation=dataclasses.replace(GENERAL.separation, num_neighbors=5),
    fit=config.FitConfig(num_bits=12),
    ferns=config.FernConfig(),
    fine_tuning=config.FineTuningConfig(
        fine_tuning_steps=5, fine_tuning_queries=32, fine_tuning_candidates=64
    ),
    augmentation=dataclasses.replace(
        GENERAL.augmentation, num_mixtures=24, mixture_seconds=1.0, noise_folds=1
    ),
)


def random_model(
    kind="magnitude",
    context=1,
    levels=0,
    snr_weight=0.0,
    pre_roll_frames=0,
    voicing=0,
    num_frames=100,
    num_bits=40,
    ferns=0,
    fern_bits=8,
    second_ferns=0,
    strength=1.0,
    decisiveness=0.0,
):
    """A model whose dictionary is random, and so are its ferns."""
    features = config.FeatureConfig(kind, 40, context, levels, 9, voicing, pre_roll_frames)
    snr = snr_weight, snr_weight / 4
    past_snr = snr_weight / 2, snr_weight
    presence = config.SpeechPresenceConfig(0.8, 1.5, *snr, *past_snr, -0.3)
    settings = config.SeparationConfig(
        features=features,
        speech_presence=presence,
        decisiveness=decisiveness,
        strength=strength,
    )
    rng = np.random.default_rng(0)
    size = feature_function(features, settings.stft).size
    frames = jnp.asarray(np.abs(rng.standard_normal((num_frames, size))), jnp.float32)
    frames = spectra.unit_norm(frames)
    hasher = codes.random_hasher(jax.random.key(0), num_bits, frames)
    binary = jnp.asarray(rng.random((num_frames, 513)) < 0.5)
    dictionary = separation.build_dictionary(hasher, frames, binary)
    learning = config.FernConfig(ferns, second_ferns, fern_bits=fern_bits)
    asked = zip(learning.stages, (NUM_FEATURES, 2 * NUM_FEATURES), strict=False)
    learned = tuple(random_ferns(rng, count, fern_bits, number) for count, number in asked)
    trained = config.TrainConfig(settings, ferns=learning)
    return Model(trained, dictionary, {}, np.asarray(frames, np.float16), learned)


def random_ferns(rng, count, bits, asked):
    """Ferns whose thresholds are near the middle of what features take, and whose values are small:
    all together at most 4, in log-odds."""
    features = rng.integers(asked, size=(count, bits))
    thresholds = rng.integers(100, 180, size=(count, bits))
    tables = rng.integers(-4096 // count, 4096 // count + 1, size=(count, 1 << bits))
    return Ferns(
        jnp.asarray(features, jnp.uint8),
        jnp.asarray(thresholds, jnp.uint8),
        jnp.asarray(tables, jnp.int16),
    )


def trained_over_random(mixtures, settings):
    """Ferns learned over hash functions drawn at random, which take no time to learn."""

    def fit(frames, *_, **__):
        return codes.random_hasher(jax.random.key(0), 24, jnp.asarray(frames)), None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "fit", fit)
        return training.train(mixtures, settings, {})[0]

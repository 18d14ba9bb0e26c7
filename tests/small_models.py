"""Quick to make: models over random frames, and a recipe that learns little."""

import dataclasses

import jax
import jax.numpy as jnp

from blsh_jax import codes, config, model, separation, spectra

GENERAL = config.RECIPES["general"]
SMALL_GENERAL = dataclasses.replace(
    GENERAL,
    fit=config.FitConfig(num_bits=12),
    refine=config.RefineConfig(refine_steps=5, refine_queries=32, refine_answers=64),
    variety=dataclasses.replace(GENERAL.variety, num_mixtures=24, mixture_seconds=1.0),
    num_neighbors=5,
)


def random_model(
    kind="magnitude",
    context=1,
    levels=0,
    snr_weight=0.0,
    lead_in_frames=0,
    voicing=0,
    num_frames=300,
    num_bits=40,
):
    """A model whose dictionary is random."""
    features = config.FeatureConfig(kind, 40, context, levels, 9, voicing, lead_in_frames)
    snr = snr_weight, snr_weight / 4
    past_snr = snr_weight / 2, snr_weight
    evidence = config.EvidenceConfig(0.8, 1.5, *snr, *past_snr, -0.3)
    settings = config.TrainConfig(features=features, evidence=evidence)
    keys = jax.random.split(jax.random.key(0), 3)
    length = spectra.num_features(features, settings.stft)
    frames = jnp.abs(jax.random.normal(keys[0], (num_frames, length)))
    frames = frames / jnp.linalg.norm(frames, axis=-1, keepdims=True)
    hasher = codes.random_hasher(keys[1], num_bits, frames)
    binary = jax.random.bernoulli(keys[2], 0.5, (num_frames, 513))
    dictionary = separation.build_dictionary(hasher, frames, binary)
    return model.Model(settings, dictionary, {})

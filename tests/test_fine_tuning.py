"""Fine-tuning: its loss against a slow one, codes that find better masks, prefixes, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import training
from blsh_jax.config import FineTuningConfig, FitConfig, TrainConfig
from blsh_jax.paper import codes
from blsh_jax.robust import fine_tuning
from blsh_jax.search import packing

CONFIG = FineTuningConfig(
    fine_tuning_steps=100,
    fine_tuning_queries=64,
    fine_tuning_candidates=256,
    fine_tuning_learning_rate=0.02,
)
# So few candidates that some queries have none from another mixture.
FEW = dataclasses.replace(CONFIG, fine_tuning_steps=5, fine_tuning_candidates=2)


def _material(count=600, length=16, num_bands=6, seed=0):
    """Features of which a few decide the masks, and others, stronger ones, say nothing of them."""
    keys = jax.random.split(jax.random.key(seed), 3)
    telling = jax.random.normal(keys[0], (count, num_bands))
    idle = 3 * jax.random.normal(keys[1], (count, length - num_bands))
    magnitudes = 0.1 + jax.random.uniform(keys[2], (count, num_bands))
    magnitudes = magnitudes / jnp.sum(magnitudes, axis=1, keepdims=True)
    speech = jnp.where(telling > 0, magnitudes, 0)
    shares = jnp.stack([speech, magnitudes - speech], axis=1)
    return jnp.concatenate([telling, idle], axis=1), shares, jnp.arange(count) // 3


def _mask_error(hasher, frames, shares):
    """Weighted error of the mean mask of the 5 nearest frames of other mixtures, by a slow loop."""
    bits = np.asarray(codes.project(frames, hasher.projections, hasher.biases) >= 0)
    shares, errors = np.asarray(shares, np.float64), []
    own = shares[:, 0] / shares.sum(1)
    for query in range(0, len(bits), 7):
        distance = (bits != bits[query]).sum(1).astype(float)
        distance[query // 3 * 3 : query // 3 * 3 + 3] = np.inf
        found = own[np.argsort(distance, kind="stable")[:5]].mean(0)
        errors.append((shares[query].sum(0) * np.abs(found - own[query])).sum())
    return np.mean(errors)


def test_neighbours_have_better_masks_at_every_length():
    frames, shares, mixtures = _material()
    hasher = codes.random_hasher(jax.random.key(2), 16, frames)
    tuned, losses = fine_tuning.fine_tune(
        hasher, frames, shares, mixtures, CONFIG, jax.random.key(1)
    )
    assert losses.shape == (100,) and losses[-20:].mean() < 0.8 * losses[:10].mean()
    others, their_shares, _ = _material(seed=5)
    for length in (8, 16):
        before, after = (
            _mask_error(h.prefix(length), others, their_shares) for h in (hasher, tuned)
        )
        assert after < 0.75 * before
    assert tuned.betas.tolist() == [1.0] * 16


def test_the_loss_is_a_search_with_soft_borders():
    frames, shares, mixtures = (np.asarray(part) for part in _material(40))
    rng = np.random.default_rng(0)
    rows, offsets = rng.standard_normal((10, 16)), rng.standard_normal(10)
    sharpness, lengths = np.array([-0.5, -0.3]), np.tile([8.0, 9.0, 10.0, 8.0, 10.0], 2)
    expected = []
    for query in range(10):
        length = int(lengths[query])
        h = np.where(frames[query] @ rows.T + offsets >= 0, 1.0, -1.0)[:length]
        weights, found = [], []
        for other in range(5, 40):
            if mixtures[other] != mixtures[query]:
                g = np.where(frames[other] @ rows.T + offsets >= 0, 1.0, -1.0)[:length]
                weights.append(np.exp(np.exp(-0.5 - 0.3 * np.log(length / 8)) * (h @ g)))
                found.append(shares[other, 0] / shares[other].sum(0))
        mask = np.average(found, axis=0, weights=weights).clip(0.01, 0.99)
        speech, rest = shares[query]
        expected.append(-(speech * np.log(mask) + rest * np.log(1 - mask)).sum())
    variables = fine_tuning._Variables(
        *(jnp.asarray(part, jnp.float32) for part in (rows, offsets, sharpness))
    )
    chosen = [
        tuple(jnp.asarray(part[drawn]) for part in (frames, shares, mixtures))
        for drawn in (slice(0, 10), slice(5, 40))
    ]
    loss = jax.jit(fine_tuning._loss)(variables, *chosen, jnp.asarray(lengths, jnp.float32))
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


def test_standardising_and_no_step_change_no_bit(monkeypatch):
    frames, shares, mixtures = _material(length=9)
    hasher = codes.random_hasher(jax.random.key(2), 12, frames)
    still = lambda state, data, standard, keys, config: (state, np.zeros(len(keys)))
    monkeypatch.setattr(fine_tuning, "_descend", still)
    same, _ = fine_tuning.fine_tune(hasher, frames, shares, mixtures, CONFIG, jax.random.key(0))
    before, after = (codes.encode(h, frames) for h in (hasher, same))
    differing = packing.unpack_bits(before ^ after, 12)
    assert float(differing.mean()) < 1e-3  # next to a hyperplane, rounding decides


def test_the_key_decides_all_and_constant_bits_and_lonely_queries_do_no_harm():
    frames, shares, mixtures = _material(60)
    hasher = codes.random_hasher(jax.random.key(2), 9, frames)
    constant = hasher._replace(projections=hasher.projections.at[3].set(0.0))
    (first, losses), (again, _), (other, _) = (
        fine_tuning.fine_tune(constant, frames, shares, mixtures // 10, FEW, jax.random.key(seed))
        for seed in (0, 0, 1)
    )
    assert all(np.isfinite(part).all() for part in (losses, *first))
    np.testing.assert_array_equal(first.projections, again.projections)
    assert not np.array_equal(first.projections, other.projections)


def test_bad_input_is_refused():
    frames, shares, mixtures = _material(60)
    hasher = codes.random_hasher(jax.random.key(2), 9, frames)
    for message, *wrong in (
        ("not a number", frames * jnp.nan, shares, mixtures),
        ("shares has shape", frames, shares[:9], mixtures),
        ("mixtures has shape", frames, shares, mixtures[:9]),
        ("one mixture only", frames, shares, 0 * mixtures),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tuning.fine_tune(hasher, *wrong, FEW, jax.random.key(0))


@pytest.mark.slow
def test_learned_bits_are_fine_tuned():
    frames, shares, mixtures = (np.asarray(part) for part in _material(100))
    config = TrainConfig(
        fit=FitConfig(num_bits=3, block_size=50, fast_candidates=2, fast_steps=3),
        target_vectors="speech_and_noise",
        fine_tuning=dataclasses.replace(FEW, fine_tuning_frames=60),
    )
    sample = training.FrameSample(frames, np.zeros((100, 17), np.uint32), shares, mixtures, 100)
    plain = dataclasses.replace(config, fine_tuning=FineTuningConfig())
    (tuned, info), (learned, before) = (training.learn(sample, c, {}) for c in (config, plain))
    assert info.fine_tuning_loss.shape == (5,) and before.fine_tuning_loss is None
    np.testing.assert_allclose(before.epsilon, info.epsilon)
    assert not np.array_equal(tuned.hasher.projections, learned.hasher.projections)

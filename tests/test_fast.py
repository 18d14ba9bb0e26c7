"""The fast mode: white coordinates, and candidates that stay at unit variance in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax.config import FitConfig
from blsh_jax.paper import boosting
from blsh_jax.paper.similarity import self_similarity
from blsh_jax.training import driver, fast
from tests.test_driver import as_cut, make_frames

FAST = FitConfig(fast_candidates=6, fast_steps=10)


def test_whitened_features_have_unit_covariance():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(3000, 4)) @ rng.normal(size=(4, 4)) + 5.0
    with jax.enable_x64():
        basis = np.asarray(fast.whitening(jnp.asarray(frames), 1e-12))
    rows = np.eye(5)[:4]  # whitened coordinate axes, through the mean
    activations = frames @ (rows @ basis.T)[:, :-1].T + (rows @ basis.T)[:, -1]
    np.testing.assert_allclose(activations.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(activations.T, bias=True), np.eye(4), atol=1e-6)


def test_ridge_bounds_the_gain_of_a_constant_feature():
    frames = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    frames[:, 2] = 0.25
    basis = np.asarray(fast.whitening(jnp.asarray(frames), 0.01))
    assert np.isfinite(basis).all()
    assert np.abs(basis).max() < 30


def test_fast_start_and_moves_keep_unit_variance():
    walk = fast.start(jax.random.key(0), jnp.eye(6), FAST)
    assert walk.rows.shape == (6, 6)
    gradient = jax.random.normal(jax.random.key(1), (6, 6))
    moved = fast.move(walk, gradient, FAST)
    for rows in (walk.rows, moved.rows):
        np.testing.assert_allclose(np.linalg.norm(rows[:, :-1], axis=1), 1.0, rtol=1e-5)
    assert np.all(np.sum((moved.rows - walk.rows) * gradient, axis=1) < 0)


def test_a_fast_bit_in_memory_jits_and_is_that_of_training():
    config = FitConfig(num_bits=1, block_size=50, fast_candidates=4, fast_steps=20)
    frames = make_frames(100)
    hasher, info = driver.fit(frames, config, jax.random.key(0))
    bits_key, blocks = as_cut(frames, jax.random.key(0), 50)
    basis = fast.whitening(blocks.reshape(100, -1), config.ridge)

    @jax.jit
    def next_bit(state, blocks):
        visits = boosting.in_memory(
            blocks, jax.vmap(self_similarity)(blocks), state.bits, config, fast.move
        )
        walk = functools.partial(fast.walk, basis=basis)
        return boosting.next_bit(state, visits, config, walk)

    state, found = next_bit(boosting.init(9, config, bits_key), blocks)
    np.testing.assert_allclose(state.bits.hasher.projections[:1], hasher.projections, atol=1e-4)
    assert abs(float(found.objective) - info.objective[0]) < 1e-6

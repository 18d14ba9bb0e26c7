import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blsh_jax import learner
from blsh_jax.config import FitConfig

FAST = FitConfig(fast_candidates=6, fast_steps=10)
PUBLISHED = FitConfig(mode="published", min_epochs=15, block_size=10)


def make_problem(seed=0, size=20, features=5, candidates=3):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, size)) / size**2
    return (
        rng.normal(size=(candidates, features + 1)),
        rng.normal(size=(size, features)),
        matrix + matrix.T,
    )


def to_float32(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_gradient_is_the_sum_over_pairs(seed):
    """The straight-through derivative, pair by pair."""
    candidates, frames, matrix = make_problem(seed, 8)
    with jax.enable_x64():
        errors, gradient = learner.block_gradient(
            jnp.asarray(candidates), jnp.asarray(frames), jnp.asarray(matrix)
        )
    for row, error, slope in zip(candidates, errors, gradient, strict=True):
        u = frames @ row[:-1] + row[-1]
        h = np.where(u >= 0, 1.0, -1.0)
        expected, total = np.zeros_like(row), 0.0
        for i in range(8):
            for j in range(8):
                total += matrix[i, j] * h[i] * h[j]
                for one, other in ((i, j), (j, i)):
                    along = matrix[i, j] * h[other] * (1 - np.tanh(u[one]) ** 2)
                    expected += along * np.append(frames[one], 1.0)
        np.testing.assert_allclose(error, total, atol=1e-12)
        np.testing.assert_allclose(slope, expected, atol=1e-12)


def test_bfloat16_matrix_rounds_the_errors_only_a_little():
    candidates, frames, matrix = to_float32(*make_problem(size=200))
    codes = jnp.where(learner.activations(candidates, frames) >= 0, 1.0, -1.0)
    exact = learner.block_errors(codes, matrix)
    rounded = learner.block_errors(codes, matrix.astype(jnp.bfloat16))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=0.01 * float(jnp.abs(matrix).sum()))


def test_gradient_jit_and_vmap_agree():
    problems = [to_float32(*make_problem(seed)) for seed in range(3)]
    stacked = [jnp.stack(arrays) for arrays in zip(*problems, strict=True)]
    batched = jax.jit(jax.vmap(learner.block_gradient))(*stacked)
    for index, problem in enumerate(problems):
        for one, many in zip(learner.block_gradient(*problem), batched, strict=True):
            np.testing.assert_allclose(one, many[index], atol=1e-5)


def test_whitened_features_have_unit_covariance():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(3000, 4)) @ rng.normal(size=(4, 4)) + 5.0
    with jax.enable_x64():
        basis = np.asarray(learner.whitening(jnp.asarray(frames), 1e-12))
    rows = np.eye(5)[:4]  # whitened coordinate axes, through the mean
    activations = frames @ (rows @ basis.T)[:, :-1].T + (rows @ basis.T)[:, -1]
    np.testing.assert_allclose(activations.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(activations.T, bias=True), np.eye(4), atol=1e-6)


def test_ridge_bounds_the_gain_of_a_constant_feature():
    frames = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    frames[:, 2] = 0.25
    basis = np.asarray(learner.whitening(jnp.asarray(frames), 0.01))
    assert np.isfinite(basis).all()
    assert np.abs(basis).max() < 30


def test_fast_start_and_moves_keep_unit_variance():
    walk = learner.start(jax.random.key(0), 5, FAST)
    assert walk.rows.shape == (6, 6)
    gradient = jax.random.normal(jax.random.key(1), (6, 6))
    moved = learner.move(walk, gradient, jnp.eye(6), FAST)
    for rows in (walk.rows, moved.rows):
        np.testing.assert_allclose(np.linalg.norm(rows[:, :-1], axis=1), 1.0, rtol=1e-5)
    assert np.all(np.sum((moved.rows - walk.rows) * gradient, axis=1) < 0)


def test_published_start_is_xavier_normal():
    rows = [learner.start(jax.random.key(seed), 500, PUBLISHED).rows for seed in range(20)]
    assert rows[0].shape == (1, 501)
    assert np.std(rows) == pytest.approx(np.sqrt(2 / 502), rel=0.03)


def test_stopping_rule_waits_and_compares_moving_averages():
    falling = list(np.linspace(1.0, 0.5, 40))
    assert not learner.has_converged(falling, PUBLISHED)
    flat = falling + [0.5] * 10
    averages = [np.mean(flat[end - 10 : end]) for end in (len(flat) - 1, len(flat))]
    assert averages[0] - averages[1] < 1 / 10**2
    assert learner.has_converged(flat, PUBLISHED)
    assert not learner.has_converged([0.5] * 14, PUBLISHED)
    assert learner.has_converged([0.5] * 15, PUBLISHED)
    eager = dataclasses.replace(PUBLISHED, min_epochs=1)
    assert not learner.has_converged([0.5] * 10, eager)
    assert learner.has_converged([0.5] * 11, eager)

"""One projection: eq. 5 and its gradient against autodiff of the sum over pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blsh_jax.config import FitConfig
from blsh_jax.paper import learner
from blsh_jax.paper.codes import straight_through_sign

PUBLISHED = FitConfig(mode="published", min_epochs=15, max_epochs=60, block_size=10)


def make_problem(seed=0, size=8, features=5, candidates=3):
    """Candidates, frames, symmetric weights that sum to 1, similarities."""
    rng = np.random.default_rng(seed)
    weights, ssm = rng.uniform(size=(size, size)), rng.uniform(0.01, 0.99, (size, size))
    weights = weights + weights.T
    return (
        rng.normal(size=(candidates, features + 1)),
        rng.normal(size=(size, features)),
        weights / weights.sum(),
        (ssm + ssm.T) / 2,
    )


def direct_loss(row, frames, weights, ssm, metric):
    """Eq. 5 as it stands: every pair, whatever it costs."""
    code = straight_through_sign(frames @ row[:-1] + row[-1])
    agreement = (1 + jnp.outer(code, code)) / 2
    if metric == "squared_error":
        return jnp.sum(weights * (agreement - ssm) ** 2)
    return -jnp.sum(weights * (agreement * jnp.log(ssm) + (1 - agreement) * jnp.log(1 - ssm)))


@pytest.mark.parametrize("metric", ["squared_error", "cross_entropy"])
@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_loss_and_gradient_are_those_of_the_sum_over_pairs(metric, seed):
    with jax.enable_x64():
        candidates, frames, weights, ssm = map(jnp.asarray, make_problem(seed))
        terms = learner.pair_terms(weights, ssm, metric)
        losses, gradients = learner.loss_and_gradient(candidates, frames, terms)
        for row, loss, gradient in zip(candidates, losses, gradients, strict=True):
            direct = jax.value_and_grad(direct_loss)(row, frames, weights, ssm, metric)
            np.testing.assert_allclose(loss, direct[0], atol=1e-12)
            np.testing.assert_allclose(gradient, direct[1], atol=1e-12)


def test_the_line_has_the_values_of_the_parabola_and_another_slope():
    candidates, frames, weights, ssm = (jnp.asarray(a, jnp.float32) for a in make_problem())
    line, parabola = (
        learner.loss_and_gradient(
            candidates, frames, learner.pair_terms(weights, ssm, parabola=which)
        )
        for which in (False, True)
    )
    np.testing.assert_array_equal(line[0], parabola[0])
    # What differs draws activations towards 0: a step against it makes them smaller.
    code = learner.candidate_codes(candidates, frames)
    towards = jnp.sum(weights, axis=1)[:, None] * code
    slope = 1 - jnp.tanh(frames @ candidates[:, :-1].T + candidates[None, :, -1]) ** 2
    pulled = (towards * slope).T @ frames
    np.testing.assert_allclose(parabola[1][:, :-1] - line[1][:, :-1], pulled, atol=1e-6)


def test_the_loss_is_differentiable_in_the_weights_and_the_similarities():
    candidates, frames, weights, ssm = (jnp.asarray(a, jnp.float32) for a in make_problem())
    code = learner.candidate_codes(candidates, frames)[:, 0]
    loss = lambda weights, ssm: learner.weighted_ssm_loss(code, learner.pair_terms(weights, ssm))
    by_weights, by_ssm = jax.jit(jax.grad(loss, argnums=(0, 1)))(weights, ssm)
    agreement = (1 + jnp.outer(code, code)) / 2
    np.testing.assert_allclose(by_weights, (agreement - ssm) ** 2, atol=1e-6)
    np.testing.assert_allclose(by_ssm, 2 * weights * (ssm - agreement), atol=1e-6)


def test_bfloat16_matrix_rounds_the_losses_only_a_little():
    candidates, frames, weights, ssm = (jnp.asarray(a, jnp.float32) for a in make_problem(size=200))
    codes = learner.candidate_codes(candidates, frames)
    terms = learner.pair_terms(weights, ssm)
    exact = learner.weighted_ssm_loss(codes, terms)
    rounded = learner.weighted_ssm_loss(
        codes, terms._replace(matrix=terms.matrix.astype(jnp.bfloat16))
    )
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(exact, rounded, atol=0.01 * float(jnp.abs(terms.matrix).sum()))


def test_gradient_jit_and_vmap_agree():
    def gradient(candidates, frames, weights, ssm):
        terms = learner.pair_terms(weights, ssm)
        return learner.loss_and_gradient(candidates, frames, terms)

    problems = [[jnp.asarray(a, jnp.float32) for a in make_problem(seed)] for seed in range(3)]
    stacked = [jnp.stack(arrays) for arrays in zip(*problems, strict=True)]
    batched = jax.jit(jax.vmap(gradient))(*stacked)
    for index, problem in enumerate(problems):
        for one, many in zip(gradient(*problem), batched, strict=True):
            np.testing.assert_allclose(one, many[index], atol=1e-5)


def test_sign_is_exact_and_counts_as_tanh_backwards():
    u = jnp.linspace(-2, 2, 9)
    np.testing.assert_array_equal(straight_through_sign(u), np.where(u >= 0, 1, -1))
    slope = jax.vmap(jax.grad(straight_through_sign))(u)
    np.testing.assert_allclose(slope, 1 - np.tanh(u) ** 2, rtol=1e-6)


def test_published_start_is_xavier_normal():
    rows = [learner.start(jax.random.key(seed), 500, PUBLISHED).rows for seed in range(20)]
    assert rows[0].shape == (1, 501)
    assert np.std(rows) == pytest.approx(np.sqrt(2 / 502), rel=0.03)


def converged(losses, config=PUBLISHED):
    return bool(learner.has_converged(jnp.asarray(losses + [0.0] * 5), len(losses), config))


def test_stopping_rule_waits_and_compares_moving_averages():
    falling = list(np.linspace(1.0, 0.5, 40))
    assert not converged(falling)
    flat = falling + [0.5] * 10
    averages = [np.mean(flat[end - 10 : end]) for end in (len(flat) - 1, len(flat))]
    assert averages[0] - averages[1] < 1 / 10**2
    assert converged(flat)
    assert not converged([0.5] * 14)
    assert converged([0.5] * 15)
    eager = dataclasses.replace(PUBLISHED, min_epochs=1)
    assert not converged([0.5] * 10, eager)
    assert converged([0.5] * 11, eager)

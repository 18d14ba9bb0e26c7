"""Boosting by other rules of pair weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import boosting
from blsh_jax.config import FitConfig
from experiments import reweighting

FIT = FitConfig(num_bits=8, block_size=60, fast_candidates=2, fast_steps=5, sigma2=0.5)
RULES = [
    reweighting.paper,
    reweighting.capped,
    reweighting.logistic,
    reweighting.nearest_first,
]


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((120, 3)) @ rng.standard_normal((3, 12))
    return np.float32(frames + 0.3 * rng.standard_normal((120, 12))), np.float32(frames[:, :4])


def weights_of(rule, ssm, u):
    """A slow spelling of each rule."""
    if rule is reweighting.capped:
        weights = np.minimum(1.0, np.exp(u))
    elif rule is reweighting.logistic:
        weights = 1.0 / (1.0 + np.exp(-u))
    elif rule is reweighting.nearest_first:
        near = ssm**5
        np.fill_diagonal(near, 0.0)
        weights = np.exp(u) * (near / near.sum() + 1.0 / near.size)
    else:
        weights = np.exp(u)
    return weights / weights.sum()


def test_the_paper_s_rule_is_boosting(vectors):
    frames, target = vectors
    found = reweighting.boost(frames, FIT, jax.random.key(3), target)
    expected, _ = boosting.fit(frames, FIT, jax.random.key(3), target)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_each_rule(rule):
    rng = np.random.default_rng(1)
    ssm, u = rng.uniform(0.05, 1.0, (7, 7)), rng.standard_normal((7, 7))
    np.testing.assert_allclose(
        rule(jnp.asarray(ssm), jnp.asarray(u)), weights_of(rule, ssm, u), rtol=1e-5
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("part", [reweighting.whole, reweighting.later_less])
def test_every_beta_follows_from_the_weights_before_it(vectors, rule, part):
    frames, _ = vectors
    hasher = reweighting.boost(frames, FIT, jax.random.key(4), rule=rule, part=part)
    order_key = jax.random.split(jax.random.key(4))[0]
    rows = boosting.prepare(frames, FIT, order_key).host.rows.reshape(-1, 60)
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    ssms = [np.exp((unit[row] @ unit[row].T - 1) / FIT.sigma2) for row in rows]
    projections, biases, betas = map(np.asarray, hasher)
    bits = np.where(frames @ projections.T + biases >= 0, 1, -1)
    u = [np.zeros((60, 60)) for _ in rows]
    for bit, beta in enumerate(betas):
        errors = [
            (ssm - (np.outer(bits[row, bit], bits[row, bit]) > 0)) ** 2
            for row, ssm in zip(rows, ssms, strict=True)
        ]
        epsilon = np.mean(
            [(weights_of(rule, *two) * e).sum() for *two, e in zip(ssms, u, errors, strict=True)]
        )
        expected = part(bit) * np.log((1 - epsilon) / epsilon) / 2
        assert beta == pytest.approx(expected, rel=2e-3), bit
        u = [before + beta * (e - 0.5) for before, e in zip(u, errors, strict=True)]


def test_half_of_the_weight_begins_on_the_nearest_pairs():
    ssm = np.full((40, 40), 0.1)
    ssm[:20, :20] = ssm[20:, 20:] = 0.9
    np.fill_diagonal(ssm, 1.0)
    weights = reweighting.nearest_first(jnp.asarray(ssm), jnp.zeros((40, 40)))
    alike = ssm == 0.9
    assert weights[alike].sum() == pytest.approx(0.5 + 0.5 * alike.mean(), abs=1e-4)
    assert np.asarray(weights.diagonal()).sum() == pytest.approx(0.5 / 40, rel=1e-4)


def test_parts_of_beta_shrink_as_described():
    assert reweighting.later_less(0) == 1 and reweighting.later_less(25) == 0.5
    assert reweighting.later_less(149) == pytest.approx(1 / 7, rel=0.01)
    assert {reweighting.whole(bit) for bit in range(150)} == {1.0}

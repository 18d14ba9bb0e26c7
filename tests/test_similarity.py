import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blsh_jax import similarity

METRICS = ("squared_error", "cross_entropy")


def _frames(seed=0, shape=(30, 7)):
    return np.abs(np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("target", ["rbf", "cosine"])
def test_ssm_is_symmetric_with_unit_diagonal(target):
    ssm = np.asarray(similarity.self_similarity(jnp.asarray(_frames()), target, 0.3))
    np.testing.assert_allclose(ssm, ssm.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(ssm), 1.0, atol=1e-5)
    assert ssm.min() > 0.0


def test_ssm_of_known_angles():
    vectors = jnp.asarray([[3.0, 0.0], [0.0, 0.1], [1.0, 1.0], [0.0, 0.0]], jnp.float32)
    half = np.sqrt(0.5)
    cosine = np.array([[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(similarity.self_similarity(vectors, "cosine"), cosine, atol=1e-6)
    np.testing.assert_allclose(
        similarity.self_similarity(vectors, "rbf", 0.5), np.exp((cosine - 1) / 0.5), atol=1e-6
    )


def test_silent_frames_give_no_nan():
    zeros = jnp.zeros((3, 5), jnp.float32)
    assert np.isfinite(similarity.self_similarity(zeros)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_pair_error_matches_its_definition(metric):
    rng = np.random.default_rng(1)
    ssm, agree = rng.uniform(0.01, 0.99, 50), rng.integers(0, 2, 50)
    expected = {
        "squared_error": (agree - ssm) ** 2,
        "cross_entropy": -np.log(np.where(agree == 1, ssm, 1 - ssm)),
    }[metric]
    products = jnp.asarray(2 * agree - 1, jnp.float32)
    got = similarity.pair_error(products, jnp.asarray(ssm, jnp.float32), metric)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_pair_error_is_finite_at_the_ends(metric):
    ends = jnp.asarray([0.0, 1.0, 0.0, 1.0], jnp.float32)
    signs = jnp.asarray([1.0, 1.0, -1.0, -1.0], jnp.float32)
    assert np.isfinite(similarity.pair_error(signs, ends, metric)).all()


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 2**31 - 1), size=st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_quadratic_form_equals_the_direct_sum(metric, seed, size):
    rng = np.random.default_rng(seed)
    half = rng.uniform(0.001, 0.999, (size, size))
    ssm = (half + half.T) / 2
    weights = rng.uniform(size=(size, size))
    weights /= weights.sum()
    code = rng.choice([-1.0, 1.0], size)
    direct = 0.0
    for i in range(size):
        for j in range(size):
            agree = float(code[i] == code[j])
            if metric == "squared_error":
                error = (agree - ssm[i, j]) ** 2
            else:
                error = -agree * np.log(ssm[i, j]) - (1 - agree) * np.log(1 - ssm[i, j])
            direct += weights[i, j] * error
    with jax.enable_x64():
        offset, slope = similarity.affine(jnp.asarray(ssm), metric)
        quadratic = np.sum(weights * offset) + code @ (weights * np.asarray(slope)) @ code
    np.testing.assert_allclose(quadratic, direct, rtol=1e-12)


def test_slopes_are_the_known_closed_forms():
    ssm = jnp.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(similarity.affine(ssm, "squared_error")[1], 0.5 - ssm, atol=1e-6)
    np.testing.assert_allclose(
        similarity.affine(ssm, "cross_entropy")[1],
        -0.5 * np.log(ssm / (1 - ssm)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_jit_and_vmap_agree_with_single_blocks():
    blocks = jnp.asarray(_frames(2, (3, 12, 5)))
    batched = jax.jit(jax.vmap(similarity.self_similarity))(blocks)
    for block, ssm in zip(blocks, batched, strict=True):
        np.testing.assert_allclose(similarity.self_similarity(block), ssm, atol=1e-6)

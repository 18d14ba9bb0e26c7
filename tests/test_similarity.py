import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.paper import similarity


def test_similarity_of_known_angles_lengths_and_silence():
    vectors = jnp.asarray([[3.0, 0.0], [0.0, 0.1], [1.0, 1.0], [0.0, 0.0]], jnp.float32)
    half = np.sqrt(0.5)
    cosine = np.array([[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(similarity.self_similarity(vectors, "cosine"), cosine, atol=1e-6)
    mapped = jax.jit(jax.vmap(lambda block: similarity.self_similarity(block, "rbf", 0.5)))
    for rbf in mapped(jnp.stack([vectors, 2 * vectors])):
        np.testing.assert_allclose(rbf, np.exp((cosine - 1) / 0.5), atol=1e-6)


@pytest.mark.parametrize("metric", ["squared_error", "cross_entropy"])
def test_pair_error_matches_its_definition_and_is_finite_at_the_ends(metric):
    rng = np.random.default_rng(1)
    ssm, agree = rng.uniform(0.01, 0.99, 50), rng.integers(0, 2, 50)
    expected = {
        "squared_error": (agree - ssm) ** 2,
        "cross_entropy": -np.log(np.where(agree == 1, ssm, 1 - ssm)),
    }[metric]
    products = jnp.asarray(2 * agree - 1, jnp.float32)
    got = similarity.pair_error(products, jnp.asarray(ssm, jnp.float32), metric)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    ends = jnp.asarray(np.arange(50) % 2, jnp.float32)
    assert np.isfinite(similarity.pair_error(products, ends, metric)).all()

import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import codes
from blsh_jax.search import cosine_top_k, hamming_top_k


def oracle(queries, dictionary, k):
    """Sort every distance, the slow way; a stable sort sends ties to the lowest index."""
    differing = np.asarray(queries)[:, None] ^ np.asarray(dictionary)[None]
    distances = np.bitwise_count(differing).sum(-1).astype(np.int32)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def random_words(rng, rows, num_bits):
    bits = jnp.asarray(rng.random((rows, num_bits)) < 0.5)
    return np.asarray(codes.pack_bits(bits))


def assert_exact(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    np.testing.assert_array_equal(found.indices, expected[1])


@pytest.mark.parametrize("num_bits", [1, 25, 32, 33, 150, 160, 512])
@pytest.mark.parametrize("size", [1, 130, 9000])
def test_matches_oracle(num_bits, size):
    rng = np.random.default_rng(num_bits + size)
    queries, dictionary = random_words(rng, 37, num_bits), random_words(rng, size, num_bits)
    k = min(size, 10)
    assert_exact(hamming_top_k(queries, dictionary, k), oracle(queries, dictionary, k))


def test_cosine_matches_oracle():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((300, 20)).astype(np.float32)
    frames = rng.standard_normal((9000, 20)).astype(np.float32)
    found = cosine_top_k(queries, frames, 10)
    scores = queries.astype(np.float64) @ frames.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    np.testing.assert_allclose(found.similarities, np.take_along_axis(scores, order, 1), atol=1e-5)
    np.testing.assert_allclose(
        np.take_along_axis(scores, np.asarray(found.indices), 1),
        np.take_along_axis(scores, order, 1),
        atol=1e-5,
    )

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blsh_jax import search
from blsh_jax.search import hamming, packing


def oracle(queries, dictionary, k):
    """Sort every distance, the slow way; a stable sort sends ties to the lowest index."""
    differing = np.asarray(queries)[:, None] ^ np.asarray(dictionary)[None]
    distances = np.bitwise_count(differing).sum(-1).astype(np.int32)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def pack(bits):
    return np.asarray(packing.pack_bits(jnp.asarray(bits)))


def random_words(rng, rows, num_bits):
    return pack(rng.random((rows, num_bits)) < 0.5)


def clustered_words(rng, rows, num_bits):
    centers = rng.random((5, num_bits)) < 0.5
    return pack(centers[rng.integers(0, 5, rows)] ^ (rng.random((rows, num_bits)) < 0.03))


def equal_words(rng, rows, num_bits):
    return pack(np.repeat(rng.random((1, num_bits)) < 0.5, rows, axis=0))


def tied_words(rng, rows, num_bits):
    """One bit set in every code: all distances are 0 or 2, and nearly all tie."""
    return pack(np.eye(num_bits, dtype=bool)[rng.integers(0, num_bits, rows)])


def farthest_first_words(rng, rows, num_bits):
    """Ever more equal bits with the index: the nearest codes come last."""
    count = np.arange(rows)[:, None] * num_bits // rows
    return pack(np.arange(num_bits)[None] < count)


KINDS = [random_words, clustered_words, equal_words, tied_words, farthest_first_words]


def assert_exact(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    np.testing.assert_array_equal(found.indices, expected[1])
    assert found.distances.dtype == found.indices.dtype == jnp.int32


@pytest.mark.parametrize(
    ("num_bits", "num_queries", "size", "k"),
    [
        *((num_bits, 38, 9000, 10) for num_bits in (1, 33, 160, 512)),
        *((70, 2, 1, 1), (70, 4, 7, 7), (70, 300, 130, 10), (70, 258, 4097, 1)),
        *((70, 2, 70_000, 128), (255, 20, 3000, 10)),
        *((254, 20, 700, 700), (64, 2, 600, 600)),
    ],
)
def test_hamming_matches_oracle(path, num_bits, num_queries, size, k):
    rng = np.random.default_rng(size)
    for kind in KINDS:
        queries = [draw(rng, num_queries // 2, num_bits) for draw in (random_words, kind)]
        queries, dictionary = np.concatenate(queries), kind(rng, size, num_bits)
        assert_exact(search.hamming_top_k(queries, dictionary, k), oracle(queries, dictionary, k))


@pytest.mark.parametrize("lane", [np.uint8, np.uint32])
@pytest.mark.parametrize(("num_queries", "size"), [(3, 70_000), (40, 70_000), (1100, 6007)])
def test_a_prepared_dictionary_gives_the_same(path, lane, num_queries, size):
    """Of bytes and of the words of accelerators, in blocks of queries, whole and by its prefix."""
    rng = np.random.default_rng(size)
    queries, dictionary = tied_words(rng, num_queries, 80), clustered_words(rng, size, 80)
    tiles = hamming._tiles(dictionary, lane)
    np.testing.assert_array_equal(tiles, hamming._tiles(jnp.asarray(dictionary), lane))
    prepared = search.Prepared(dictionary, tiles)
    for num_bits, masks in ((None, [~0, ~0, ~0]), (45, [~0, 0x1FFF, 0])):
        cut = [
            words & np.array(masks, np.int64).astype(np.uint32) for words in (queries, dictionary)
        ]
        found = search.hamming_top_k(queries, prepared, 20, num_bits)
        assert_exact(jax.tree.map(lambda x: x[:200], found), oracle(cut[0][:200], cut[1], 20))


def test_prepared_arrays_of_numpy_stay_there_and_must_fit():
    codes = random_words(np.random.default_rng(0), 5000, 40)
    prepared = search.prepare(codes)
    assert isinstance(prepared.tiles, np.ndarray) and prepared.codes is codes
    with pytest.raises(ValueError, match="prepare them anew"):
        search.hamming_top_k(codes[:1], prepared._replace(codes=codes[:4000]), 1)
    with pytest.raises(ValueError, match=r"codes is int32 \(3, 1\)"):
        search.prepare(np.zeros((3, 1), np.int32))


@pytest.mark.parametrize("num_queries", [1, 20])
@pytest.mark.parametrize("num_bits", [1, 32, 40, 64, 90])
def test_prefix_equals_search_of_shorter_codes(path, num_bits, num_queries):
    rng = np.random.default_rng(num_bits)
    query_bits = rng.random((num_queries, 150)) < 0.5
    dictionary_bits = rng.random((3000, 150)) < 0.5
    found = search.hamming_top_k(pack(query_bits), pack(dictionary_bits), 10, num_bits=num_bits)
    shorter = pack(query_bits[:, :num_bits]), pack(dictionary_bits[:, :num_bits])
    assert_exact(found, oracle(*shorter, 10))


def test_dictionaries_under_vmap_each_have_their_own_queries_or_share_them(path):
    rng = np.random.default_rng(0)
    queries, dictionaries = random_words(rng, 30, 40), random_words(rng, 400, 40)
    queries, dictionaries = queries.reshape(3, 10, 2), dictionaries.reshape(4, 100, 2)
    run = lambda q, d: search.hamming_top_k(q, d, 5)
    crossed = jax.vmap(jax.vmap(run, (None, 0)), (0, None))(queries, dictionaries)
    paired = jax.jit(jax.vmap(run))(queries, dictionaries[:3])
    for i, asked in enumerate(queries):
        assert_exact(jax.tree.map(lambda x, i=i: x[i], paired), oracle(asked, dictionaries[i], 5))
        for j, dictionary in enumerate(dictionaries):
            found = jax.tree.map(lambda x, i=i, j=j: x[i, j], crossed)
            assert_exact(found, oracle(asked, dictionary, 5))


@pytest.mark.parametrize("size", [5, 40, 20_000])
def test_cosine_matches_oracle(size):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((300, 20)).astype(np.float32)
    frames = rng.standard_normal((size, 20)).astype(np.float32)
    k = min(size, 10)
    found = search.cosine_top_k(queries, frames, k)
    scores = queries.astype(np.float64) @ frames.astype(np.float64).T
    best = -np.sort(-scores, axis=1)[:, :k]
    np.testing.assert_allclose(found.similarities, best, atol=1e-5)
    chosen = np.take_along_axis(scores, np.asarray(found.indices), 1)
    np.testing.assert_allclose(chosen, best, atol=1e-5)


def test_cosine_sends_ties_to_the_lowest_index_of_either_zero_too():
    frames = np.repeat(np.eye(4, dtype=np.float32), 3000, axis=0)
    found = search.cosine_top_k(np.eye(4, dtype=np.float32), frames, 40)
    np.testing.assert_array_equal(found.similarities, 1)
    np.testing.assert_array_equal(found.indices, np.arange(4)[:, None] * 3000 + np.arange(40))
    zeros = np.float32([-0.0, 0.0] * 4)[:, None]
    found = search.cosine_top_k(np.ones((1, 1), np.float32), zeros, 8)
    np.testing.assert_array_equal(found.indices[0], np.arange(8))


WEIGHTS = [
    lambda rng, num_bits: rng.random(num_bits),
    lambda rng, num_bits: 2.0 ** -np.arange(num_bits),
    lambda rng, num_bits: rng.normal(size=num_bits),
    lambda rng, num_bits: np.zeros(num_bits),
]


def assert_weighted_exact(found, queries, dictionary, weights, k):
    """Against sums in float64 of the rounded weights of the bits that agree, stably sorted."""
    rounded = np.asarray(search.quantize_weights(jnp.asarray(weights)), np.float64)
    bits = [
        np.asarray(packing.unpack_bits(jnp.asarray(x), len(weights))) for x in (queries, dictionary)
    ]
    bipolar = [np.where(x, 1.0, -1.0) for x in bits]
    scores = ((bipolar[0] * rounded) @ bipolar[1].T + rounded.sum()) / 2
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.similarities, np.take_along_axis(scores, order, 1))
    np.testing.assert_array_equal(found.indices, order)
    assert (found.similarities.dtype, found.indices.dtype) == (jnp.float32, jnp.int32)


@pytest.mark.parametrize(
    ("num_bits", "num_queries", "size", "k"),
    [(1, 1, 1, 1), (70, 300, 500, 128), (160, 30, 9000, 10)],
)
def test_weighted_matches_oracle_exactly(num_bits, num_queries, size, k):
    """The codes have more bits than there are weights."""
    rng = np.random.default_rng(num_bits)
    for kind in KINDS:
        queries, dictionary = (
            draw(rng, rows, num_bits + 32)
            for draw, rows in ((random_words, num_queries), (kind, size))
        )
        for draw in WEIGHTS:
            weights = draw(rng, num_bits).astype(np.float32)
            found = search.weighted_hamming_top_k(queries, dictionary, weights, k)
            assert_weighted_exact(found, queries, dictionary, weights, k)


def test_weighted_under_jit_and_vmap():
    rng = np.random.default_rng(0)
    queries, dictionary = clustered_words(rng, 24, 64), clustered_words(rng, 2000, 64)
    weights = np.stack([draw(rng, 64) for draw in WEIGHTS[:2]])
    weights = weights.astype(np.float32)
    run = jax.jit(jax.vmap(lambda w: search.weighted_hamming_top_k(queries, dictionary, w, 5)))
    found = run(weights)
    for row in range(2):
        one = jax.tree.map(lambda x, row=row: x[row], found)
        assert_weighted_exact(one, queries, dictionary, weights[row], 5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 2**20, width=32, allow_subnormal=False), min_size=150, max_size=150),
    st.integers(0, 2**32 - 1),
)
def test_sums_of_quantized_weights_are_exact_in_any_order(weights, seed):
    weights = np.asarray(weights, np.float32) + np.float32(1e-3)
    rounded = np.asarray(search.quantize_weights(jnp.asarray(weights)))
    half_step = 2.0**-24 * weights.astype(np.float64).sum() * (1 + 2.0**-9)  # at most
    assert np.all(np.abs(rounded - weights) <= half_step)
    rng = np.random.default_rng(seed)
    signed = rng.permutation(rounded * rng.choice(np.float32([-1, 1]), 150))
    assert float(np.cumsum(signed, dtype=np.float32)[-1]) == float(signed.astype(np.float64).sum())


@pytest.mark.parametrize(
    ("queries", "dictionary", "k", "num_bits", "message"),
    [
        ((3, 2), (9, 1), 1, None, "query_codes has 2 columns and dictionary_codes 1"),
        ((3, 1), (9, 1), 0, None, "k is 0"),
        ((3, 1), (9, 1), 10, None, "k is 10: choose 1 to 9"),
        ((3,), (9, 1), 1, None, "query_codes has shape"),
        ((3, 1), (0, 1), 1, None, "dictionary_codes has shape"),
        ((3, 1), (9, 1), 1, 33, "num_bits is 33"),
    ],
)
def test_bad_sizes_are_named(queries, dictionary, k, num_bits, message):
    with pytest.raises(ValueError, match=message):
        search.hamming_top_k(
            np.zeros(queries, np.uint32), np.zeros(dictionary, np.uint32), k, num_bits
        )


def test_wrong_types_and_too_many_weights_are_named():
    words = np.zeros((3, 1), np.uint32)
    with pytest.raises(ValueError, match="dictionary_codes is int32: give uint32"):
        search.hamming_top_k(words, words.astype(np.int32), 1)
    with pytest.raises(ValueError, match="queries is uint32: give float32"):
        search.cosine_top_k(words, words, 1)
    with pytest.raises(ValueError, match="num_bits is 33"):
        search.weighted_hamming_top_k(words, words, np.ones(33, np.float32), 1)

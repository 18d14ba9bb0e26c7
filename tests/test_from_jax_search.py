"""The searches from other JAX code: meshes, shard_map, leading axes, transformations, x64."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from blsh_jax import search

P = PartitionSpec
RNG = np.random.default_rng(0)
QUERIES = RNG.integers(0, 64, (64, 2), dtype=np.uint32)  # few distinct codes: many ties
ENTRIES = RNG.integers(0, 64, (1000, 2), dtype=np.uint32)
WEIGHTS = np.linspace(1, 0.5, 64, dtype=np.float32)
FRAMES = RNG.integers(-2, 3, (1064, 16)).astype(np.float32)  # small integers: sums are exact
K = 10
TYPES = [AxisType.Auto, AxisType.Explicit]

SEARCHES = {
    "hamming": (lambda q, e: search.hamming_top_k(q, e, K), QUERIES, ENTRIES),
    "weighted": (lambda q, e: search.weighted_hamming_top_k(q, e, WEIGHTS, K), QUERIES, ENTRIES),
    "cosine": (lambda q, e: search.cosine_top_k(q, e, K), FRAMES[:64], FRAMES[64:]),
}


@functools.cache
def expected_of(name):
    """What a search finds in unsharded arrays."""
    run, queries, entries = SEARCHES[name]
    return [np.asarray(x) for x in run(queries, entries)]


@pytest.fixture(params=[*SEARCHES, "native hamming"])
def case(request):
    """A search, its arguments, and what it finds in unsharded arrays."""
    name = request.param.removeprefix("native ")
    found = *SEARCHES[name], expected_of(name)
    with contextlib.ExitStack() as stack:
        if name != request.param:
            stack.enter_context(request.getfixturevalue("natively")())
        yield found


def assert_same(found, expected):
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(actual).reshape(wanted.shape), wanted)
        assert actual.dtype == wanted.dtype


def make_mesh(kind):
    return jax.make_mesh((2, 4), ("a", "b"), axis_types=(kind, kind))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("rows", [P("a", "b"), P("b", None)])
def test_queries_and_dictionary_that_are_cut_over_a_mesh(case, kind, rows):
    run, queries, entries, expected = case
    mesh = make_mesh(kind)
    batch = queries.reshape(4, 16, -1)
    cut = jax.device_put(batch, NamedSharding(mesh, rows))
    for columns in (P(), P("a", None)):
        found = jax.jit(run)(cut, jax.device_put(entries, NamedSharding(mesh, columns)))
        assert_same(found, expected)
        assert found.indices.shape == (4, 16, K)
        if kind == AxisType.Explicit:
            assert found.indices.sharding.is_equivalent_to(NamedSharding(mesh, rows), 3)


def test_every_explicit_device_searches_for_its_own_queries_only(path):
    mesh = make_mesh(AxisType.Explicit)
    cut = jax.device_put(QUERIES, NamedSharding(mesh, P(("a", "b"), None)))
    whole = jax.device_put(ENTRIES, NamedSharding(mesh, P()))
    text = search.hamming_top_k.lower(cut, whole, K).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-to-all", "all-reduce"))


@pytest.mark.parametrize("kind", TYPES)
def test_inside_shard_map(case, kind):
    run, queries, entries, expected = case
    mesh = make_mesh(kind)
    placed = [
        jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in ((queries, P(("a", "b"), None)), (entries, P()))
    ]
    specs = {"in_specs": (P(("a", "b"), None), P()), "out_specs": P(("a", "b"), None)}
    for check_vma in (True, False):
        mapped = jax.shard_map(run, mesh=mesh, **specs, check_vma=check_vma)
        assert_same(jax.jit(mapped)(*placed), expected)


def test_leading_axes_jit_vmap_scan_and_x64(case):
    run, queries, entries, expected = case
    batch = queries.reshape(2, 2, 16, -1)
    rows = batch.reshape(4, 16, -1)
    assert run(batch, entries).indices.shape == (2, 2, 16, K)
    assert_same(run(batch, entries), expected)
    assert_same(jax.vmap(run, (0, None))(rows, entries), expected)
    assert_same(jax.lax.map(lambda x: run(x, jnp.asarray(entries)), rows), expected)
    assert_same(jax.jit(jax.vmap(jax.vmap(run, (0, None)), (0, None)))(batch, entries), expected)
    with jax.enable_x64(True):
        assert_same(run(batch, entries), expected)


def test_what_cannot_be_searched_says_what_to_do():
    sharding = NamedSharding(make_mesh(AxisType.Explicit), P("a", None, None))
    batch = jax.device_put(QUERIES.reshape(4, 16, 2), sharding)
    try:  # jax 0.8 maps over such an axis, later ones do not
        mapped = jax.vmap(lambda rows: search.hamming_top_k(rows, ENTRIES, K))(batch)
    except ValueError as error:
        assert "queries, no vmap" in str(error)
    else:
        assert_same(mapped, search.hamming_top_k(batch, ENTRIES, K))
    with pytest.raises(ValueError, match=r"dictionary_codes has shape .* one matrix"):
        search.hamming_top_k(QUERIES, ENTRIES.reshape(2, 500, 2), K)
    with pytest.raises(ValueError, match=r"axes \('a', 'b'\): name two .* query_axis"):
        search.sharded_hamming_top_k(QUERIES, ENTRIES, K, make_mesh(AxisType.Auto))


@pytest.mark.parametrize("kind", TYPES)
def test_the_sharded_search_inside_jit_with_other_names(path, kind):
    run = jax.jit(lambda q, e: search.sharded_hamming_top_k(q, e, K, make_mesh(kind), "a", "b"))
    assert_same(run(QUERIES, ENTRIES), search.hamming_top_k(QUERIES, ENTRIES, K))

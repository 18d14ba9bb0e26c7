"""What every search shares: results, checks, blocks of queries, selection."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

_Tree = TypeVar("_Tree")


class Neighbors(NamedTuple):
    """The K nearest dictionary codes of every query, nearest first.

    Attributes:
        distances: (..., K) int32 Hamming distances.
        indices: (..., K) int32 rows of the dictionary; among equal distances the lowest come first.
    """

    distances: Array
    indices: Array


class SimilarNeighbors(NamedTuple):
    """The K most similar dictionary entries of every query, most similar first.

    Attributes:
        similarities: (..., K) float32.
        indices: (..., K) int32 rows of the dictionary; among equals the lowest come first.
    """

    similarities: Array
    indices: Array


def check(queries: Array, entries: Array, k: int, names: tuple[str, str], dtype: type) -> None:
    """Raise ValueError unless both have equally wide rows of that type and 1 <= k <= N."""
    for name, array in zip(names, (queries, entries), strict=True):
        if array.dtype != dtype:
            raise ValueError(f"{name} is {array.dtype}: give {jnp.dtype(dtype)}")
        if array.ndim < 2 or 0 in array.shape:
            raise ValueError(f"{name} has shape {array.shape}: give a non-empty matrix of rows")
    if entries.ndim != 2:
        raise ValueError(f"{names[1]} has shape {entries.shape}: give one matrix for all queries")
    if queries.shape[-1] != entries.shape[1]:
        raise ValueError(
            f"{names[0]} has {queries.shape[-1]} columns and {names[1]} {entries.shape[1]}: "
            "make both with the same model"
        )
    if not 1 <= k <= entries.shape[0]:
        raise ValueError(f"k is {k}: choose 1 to {entries.shape[0]}, the size of {names[1]}")


def search_rows(search: Callable[..., _Tree], queries: Array, *others: Any) -> _Tree:
    """Apply a search for (Q, W) queries to (..., W) queries.

    Queries that are explicitly sharded along leading axes stay so: every device searches for its
    own, and gathers the other arguments whole.

    Args:
        search: from (Q, W) queries and the other arguments to arrays (Q, K).
        queries: (..., W).
        others: what else ``search`` takes: arrays, or trees of them.

    Returns:
        Arrays (..., K).
    """

    def flat(queries: Array, *others: Any) -> _Tree:
        found = search(queries.reshape(-1, queries.shape[-1]), *others)
        return jax.tree.map(lambda x: x.reshape(*queries.shape[:-1], -1), found)

    arrays = queries, *others
    for mesh in (jax.typeof(x).sharding.mesh for x in jax.tree.leaves(arrays)):
        if mesh.explicit_axes:
            break
    else:
        return flat(*arrays)
    cut = PartitionSpec(*jax.typeof(queries).sharding.spec[: queries.ndim - 1])
    specs = (cut, *jax.tree.map(lambda _: PartitionSpec(), others))
    arrays = jax.tree.map(
        lambda x, spec: jax.sharding.reshard(x, NamedSharding(mesh, spec)), arrays, specs
    )
    axes = set(mesh.explicit_axes)
    run = jax.shard_map(flat, mesh=mesh, in_specs=specs, out_specs=cut, axis_names=axes)
    try:
        return run(*arrays)
    except ValueError as error:
        if "subset of mesh.axis_names" not in str(error):
            raise
        raise ValueError(
            "vmap runs over an axis that is explicitly sharded: give (..., Q, W) queries, no vmap"
        ) from error


def check_multiple(name: str, size: int, parts: int) -> None:
    """Raise ValueError unless rows can be cut evenly."""
    if size % parts:
        raise ValueError(f"{name} has {size} rows: pad them to a multiple of {parts} devices")


def varying(start: _Tree, *arrays: Array) -> _Tree:
    """The first carry of a scan, typed to differ between the devices where one of the arrays does.

    ``jax.shard_map`` wants the carries of a scan to be of one such type. Adding a 0 that is made of
    the arrays gives it, in every version of JAX.
    """
    for first in (x[(0,) * x.ndim] for x in arrays):
        zero = first > first
        start = jax.tree.map(lambda x, zero=zero: x + zero.astype(x.dtype), start)
    return start


def pad_rows(rows: Array, count: int) -> Array:
    """(N, W) rows with the last one repeated up to ``count`` rows.

    A repeated code never makes a group's minimum smaller, so only whole groups of them need masks.
    """
    return jnp.pad(rows, ((0, count - rows.shape[0]), (0, 0)), mode="edge")


def map_query_blocks(search: Callable[[Array], _Tree], queries: Array, size: int) -> _Tree:
    """Apply ``search`` to blocks of ``size`` queries or fewer in turn, and join the results."""
    count = -(-queries.shape[0] // size)
    size = -(-queries.shape[0] // count)
    if count == 1:
        return search(queries)
    blocks = pad_rows(queries, count * size).reshape(count, size, queries.shape[1])
    found = jax.lax.map(search, blocks)
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[: queries.shape[0]], found)


def smallest(distances: Array, k: int) -> tuple[Array, Array]:
    """The k smallest of every row and their places, ties to the lowest place.

    Args:
        distances: (Q, M) integers up to 2^24, so that float32, the only type with a fast top_k, is
            exact.
        k: how many; static.

    Returns:
        (Q, k) int32 distances and (Q, k) int32 places.
    """
    top, places = jax.lax.top_k(-distances.astype(jnp.float32), k)
    return (-top).astype(jnp.int32), places

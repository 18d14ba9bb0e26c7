"""Search: the K nearest dictionary entries of every query, exact, ties to the lowest index.

Letters: N dictionary entries, Q queries, K neighbours, D features, L bits, W = ceil(L / 32) words.
Queries and dictionary are cut into blocks, so memory never grows with Q * N.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes

_QUERY_BLOCK = 256
_DICTIONARY_BLOCK = 8192


class Neighbors(NamedTuple):
    """The K nearest dictionary codes of every query, nearest first.

    Attributes:
        distances: (Q, K) int32 Hamming distances.
        indices: (Q, K) int32 rows of the dictionary; among equal distances the lowest come first.
    """

    distances: Array
    indices: Array


class SimilarNeighbors(NamedTuple):
    """The K most similar dictionary entries of every query, most similar first.

    Attributes:
        similarities: (Q, K) float32.
        indices: (Q, K) int32 rows of the dictionary; among equals the lowest come first.
    """

    similarities: Array
    indices: Array


@partial(jax.jit, static_argnames=("k", "num_bits"))
def hamming_top_k(
    query_codes: Array, dictionary_codes: Array, k: int, num_bits: int | None = None
) -> Neighbors:
    """The K dictionary codes at the smallest Hamming distance from every query.

    Args:
        query_codes: (Q, W) uint32 packed codes.
        dictionary_codes: (N, W) uint32 packed codes.
        k: K, at most N; static.
        num_bits: search with the first ``num_bits`` bits only, without repacking; static.

    Returns:
        Exact neighbours, nearest first, ties to the lowest index.

    Raises:
        ValueError: shapes disagree, k is not within 1 to N, or num_bits is longer than the codes.

    Source: [ICASSP20] Algorithm 1 with Hamming similarity (section 2.2).
    """
    _check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"))
    if num_bits is not None:
        query_codes = codes.prefix_codes(jnp.asarray(query_codes), num_bits)
        dictionary_codes = codes.prefix_codes(jnp.asarray(dictionary_codes), num_bits)

    def similarity(queries: Array, entries: Array) -> Array:
        return -codes.hamming_distances(queries, entries).astype(jnp.float32)

    best = _blocked_top_k(jnp.asarray(query_codes), jnp.asarray(dictionary_codes), k, similarity)
    return Neighbors((-best.similarities).astype(jnp.int32), best.indices)


@partial(jax.jit, static_argnames="k")
def cosine_top_k(queries: Array, frames: Array, k: int) -> SimilarNeighbors:
    """The K frames of the largest cosine similarity with every query.

    Args:
        queries: (Q, D) float32 unit vectors.
        frames: (N, D) float32 unit vectors.
        k: K, at most N; static.

    Returns:
        Neighbours, most similar first, ties to the lowest index.

    Raises:
        ValueError: shapes disagree, or k is not within 1 to N.

    Source: [ICASSP20] Algorithm 1.
    """
    _check(queries, frames, k, ("queries", "frames"))

    def similarity(block: Array, entries: Array) -> Array:
        return jnp.matmul(block, entries.T, precision=jax.lax.Precision.HIGHEST)

    return _blocked_top_k(jnp.asarray(queries), jnp.asarray(frames), k, similarity)


def _blocked_top_k(
    queries: Array, entries: Array, k: int, similarity: Callable[[Array, Array], Array]
) -> SimilarNeighbors:
    """Exact top K under any similarity, one (query block, dictionary block) at a time."""
    num_queries, num_entries = queries.shape[0], entries.shape[0]
    query_block = min(_QUERY_BLOCK, num_queries)
    entry_block = min(_DICTIONARY_BLOCK, num_entries)
    entry_blocks = _blocks(entries, entry_block)
    starts = jnp.arange(entry_blocks.shape[0], dtype=jnp.int32) * entry_block

    def search_block(block: Array) -> SimilarNeighbors:
        def merge(best, item):
            start, entries_here = item
            index = start + jnp.arange(entry_block, dtype=jnp.int32)
            scores = similarity(block, entries_here)
            scores = jnp.where((index < num_entries)[None, :], scores, -jnp.inf)
            index = jnp.broadcast_to(index, scores.shape)
            # Earlier blocks stand first, so the stable top_k keeps the lowest index of equals.
            top, place = jax.lax.top_k(jnp.concatenate([best.similarities, scores], 1), k)
            index = jnp.concatenate([best.indices, index], 1)
            return SimilarNeighbors(top, jnp.take_along_axis(index, place, 1)), None

        nothing = SimilarNeighbors(
            jnp.full((query_block, k), -jnp.inf, jnp.float32),
            jnp.full((query_block, k), num_entries, jnp.int32),
        )
        return jax.lax.scan(merge, nothing, (starts, entry_blocks))[0]

    found = jax.lax.map(search_block, _blocks(queries, query_block))
    return jax.tree.map(lambda x: x.reshape(-1, k)[:num_queries], found)


def _blocks(rows: Array, size: int) -> Array:
    """(N, ...) rows as (blocks, size, ...), padded with zeros."""
    count = -(-rows.shape[0] // size)
    padding = [(0, count * size - rows.shape[0])] + [(0, 0)] * (rows.ndim - 1)
    return jnp.pad(rows, padding).reshape(count, size, *rows.shape[1:])


def _check(queries: Array, entries: Array, k: int, names: tuple[str, str]) -> None:
    for name, array in zip(names, (queries, entries), strict=True):
        if array.ndim != 2 or array.shape[0] == 0:
            raise ValueError(f"{name} has shape {array.shape}: give one non-empty row per code")
    if queries.shape[1] != entries.shape[1]:
        raise ValueError(
            f"{names[0]} has {queries.shape[1]} columns and {names[1]} {entries.shape[1]}: "
            "make both with the same model"
        )
    if not 1 <= k <= entries.shape[0]:
        raise ValueError(f"k is {k}: choose 1 to {entries.shape[0]}, the size of {names[1]}")

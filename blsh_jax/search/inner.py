"""Exact search by inner products: cosine similarity of frames."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search import blocks
from blsh_jax.search.blocks import SimilarNeighbors

_QUERY_BLOCK = 256
_ENTRY_BLOCK = 8192
_GROUP = 32


@partial(jax.jit, static_argnames="k")
def cosine_top_k(queries: Array, frames: Array, k: int) -> SimilarNeighbors:
    """The K frames of the largest cosine similarity with every query.

    Args:
        queries: (..., Q, D) float32 unit vectors.
        frames: (N, D) float32 unit vectors.
        k: K, at most N; static.

    Returns:
        Neighbours (..., Q, K), most similar first, ties to the lowest index. Similarities carry the
        rounding of one float32 matrix product.

    Raises:
        ValueError: shapes or types disagree, or k is not within 1 to N.

    Source: [ICASSP20] Algorithm 1.
    """
    blocks.check(queries, frames, k, ("queries", "frames"), jnp.float32)
    search = partial(top_k, k=k, decode=lambda rows: rows)
    return blocks.search_rows(search, jnp.asarray(queries), jnp.asarray(frames))


def top_k(
    queries: Array, entries: Array, k: int, decode: Callable[[Array], Array]
) -> SimilarNeighbors:
    """The K entries of the largest inner product, for checked arguments.

    Args:
        queries: (Q, D) float32.
        entries: (N, W), rows that ``decode`` understands.
        k: K; static.
        decode: from a block of entries to (M, D) float32; static.

    Returns:
        Neighbours, most similar first, ties to the lowest index.
    """
    size, num_queries = entries.shape[0], queries.shape[0]
    block = min(_ENTRY_BLOCK, size)

    def step(best: SimilarNeighbors, first: Array) -> tuple[SimilarNeighbors, None]:
        # The last block begins early enough to be whole; what it repeats is masked.
        start = jnp.minimum(first, size - block)
        columns = decode(jax.lax.dynamic_slice_in_dim(entries, start, block)).T
        repeated = start + jnp.arange(block, dtype=jnp.int32) < first

        def search_block(rows: Array) -> SimilarNeighbors:
            scores = jnp.matmul(rows, columns, precision=jax.lax.Precision.HIGHEST)
            scores = jnp.where(scores == 0, jnp.float32(0), scores)  # top_k puts -0 behind 0
            scores = jnp.where(repeated[None, :], -jnp.inf, scores)
            top, place = _largest(scores, min(k, block))
            return SimilarNeighbors(top, start + place)

        found = blocks.map_query_blocks(search_block, queries, min(_QUERY_BLOCK, num_queries))
        return _merge(best, found, k), None

    nothing = SimilarNeighbors(
        jnp.full((num_queries, k), -jnp.inf, jnp.float32),
        jnp.full((num_queries, k), size, jnp.int32),
    )
    nothing = blocks.varying(nothing, queries, entries)
    return jax.lax.scan(step, nothing, jnp.arange(0, size, block, dtype=jnp.int32))[0]


def _largest(scores: Array, k: int) -> tuple[Array, Array]:
    """top_k of (Q, M) scores by way of the maxima of groups, ties to the lowest place."""
    num_queries, size = scores.shape
    num_groups = size // _GROUP
    if size % _GROUP or num_groups < 2 * k:
        return jax.lax.top_k(scores, k)
    grouped = scores.reshape(num_queries, num_groups, _GROUP)
    chosen = jnp.sort(jax.lax.top_k(jnp.max(grouped, axis=2), k)[1], axis=1)
    near = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1)
    top, place = jax.lax.top_k(near.reshape(num_queries, k * _GROUP), k)
    group = jnp.take_along_axis(chosen, place // _GROUP, axis=1)
    return top, group * _GROUP + place % _GROUP


def _merge(first: SimilarNeighbors, second: SimilarNeighbors, k: int) -> SimilarNeighbors:
    similarities = jnp.concatenate([first.similarities, second.similarities], axis=1)
    indices = jnp.concatenate([first.indices, second.indices], axis=1)
    top, places = jax.lax.top_k(similarities, k)
    return SimilarNeighbors(top, jnp.take_along_axis(indices, places, axis=1))

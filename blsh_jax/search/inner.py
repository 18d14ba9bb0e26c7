"""Exact search by inner products: cosine similarity of frames, and weighted agreement of bits."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes
from blsh_jax.search import blocks
from blsh_jax.search.blocks import SimilarNeighbors

_QUERY_BLOCK = 256
_ENTRY_BLOCK = 8192
_GROUP = 32
_MANTISSA_BITS = 24


@partial(jax.jit, static_argnames="k")
def cosine_top_k(queries: Array, frames: Array, k: int) -> SimilarNeighbors:
    """The K frames of the largest cosine similarity with every query.

    Args:
        queries: (Q, D) float32 unit vectors.
        frames: (N, D) float32 unit vectors.
        k: K, at most N; static.

    Returns:
        Neighbours, most similar first, ties to the lowest index. Similarities carry the rounding of
        one float32 matrix product.

    Raises:
        ValueError: shapes or types disagree, or k is not within 1 to N.

    Source: [ICASSP20] Algorithm 1.
    """
    blocks.check(queries, frames, k, ("queries", "frames"), jnp.float32)
    return _top_k(jnp.asarray(queries), jnp.asarray(frames), k, lambda rows: rows)


@partial(jax.jit, static_argnames="k")
def weighted_hamming_top_k(
    query_codes: Array, dictionary_codes: Array, weights: Array, k: int
) -> SimilarNeighbors:
    """The K dictionary codes of the largest weighted agreement sum_l beta_l [a_l = b_l].

    The weights are first rounded by ``quantize_weights``; with the rounded weights every sum is
    exact in float32, in any order, so the result is the same on every platform.

    Args:
        query_codes: (Q, W) uint32 packed codes.
        dictionary_codes: (N, W) uint32 packed codes.
        weights: (L,) float32, beta of each bit, 0 or more; only the first L bits count.
        k: K, at most N; static.

    Returns:
        Neighbours, most similar first, ties to the lowest index.

    Raises:
        ValueError: shapes or types disagree, k is not within 1 to N, or there are more weights than
            bits.

    Source: [ICASSP20] section 5 (future work), with the weights of eq. 6.
    """
    blocks.check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)
    weights = quantize_weights(jnp.asarray(weights))
    num_bits = weights.shape[0]
    codes.check_num_bits(num_bits, query_codes.shape[1] * codes.WORD_BITS)

    def bipolar(words: Array) -> Array:
        return jnp.where(codes.unpack_bits(words, num_bits), jnp.float32(1), jnp.float32(-1))

    # [a = b] = (1 + a b) / 2 for bits -1 and +1.
    scaled = bipolar(jnp.asarray(query_codes)) * weights[None, :]
    found = _top_k(scaled, jnp.asarray(dictionary_codes), k, bipolar)
    return found._replace(similarities=(found.similarities + jnp.sum(weights)) / 2)


def quantize_weights(weights: Array) -> Array:
    """Weights rounded to multiples of 2^-24 of the power of two above their sum.

    Every partial sum of such weights, with any signs, is a whole number of steps below 2^24, hence
    exact in float32. A weight moves by at most half a step: 3e-8 of the sum.

    Args:
        weights: (L,) float32, 0 or more, with L at most 2^12.

    Returns:
        (L,) float32.
    """
    # Rounding up may add half a step per weight; the margin keeps the sum below the power of two.
    total = jnp.sum(weights) * jnp.float32(1 + 2.0**-10)
    exponent = jnp.frexp(total)[1] - _MANTISSA_BITS
    return jnp.ldexp(jnp.round(jnp.ldexp(weights, -exponent)), exponent)


def _top_k(
    queries: Array, entries: Array, k: int, decode: Callable[[Array], Array]
) -> SimilarNeighbors:
    """The K entries of the largest inner product; ``decode`` makes float32 rows of a block."""
    size, num_queries = entries.shape[0], queries.shape[0]
    block = min(_ENTRY_BLOCK, size)

    def step(best: SimilarNeighbors, first: Array) -> tuple[SimilarNeighbors, None]:
        # The last block begins early enough to be whole; what it repeats is masked.
        start = jnp.minimum(first, size - block)
        columns = decode(jax.lax.dynamic_slice_in_dim(entries, start, block)).T
        repeated = start + jnp.arange(block, dtype=jnp.int32) < first

        def search_block(rows: Array) -> SimilarNeighbors:
            scores = jnp.matmul(rows, columns, precision=jax.lax.Precision.HIGHEST)
            scores = jnp.where(repeated[None, :], -jnp.inf, scores)
            top, place = _largest(scores, min(k, block))
            return SimilarNeighbors(top, start + place)

        found = blocks.map_query_blocks(search_block, queries, min(_QUERY_BLOCK, num_queries))
        return _merge(best, found, k), None

    nothing = SimilarNeighbors(
        jnp.full((num_queries, k), -jnp.inf, jnp.float32),
        jnp.full((num_queries, k), size, jnp.int32),
    )
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

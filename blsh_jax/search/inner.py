"""Exact search by inner products: cosine similarity of frames, weighted agreement of bits."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search import blocks, packing
from blsh_jax.search.blocks import SimilarNeighbors

_QUERY_BLOCK = 256
_ENTRY_BLOCK = 8192
_GROUP = 32
_MANTISSA_BITS = 24


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
    search = partial(_top_k, k=k, decode=lambda rows: rows)
    return blocks.search_rows(search, jnp.asarray(queries), jnp.asarray(frames))


@partial(jax.jit, static_argnames="k")
def weighted_hamming_top_k(
    query_codes: Array, dictionary_codes: Array, weights: Array, k: int
) -> SimilarNeighbors:
    """The K dictionary codes of the largest weighted agreement sum_l beta_l [a_l = b_l].

    The weights are first rounded by ``quantize_weights``; with the rounded weights every sum is
    exact in float32, in any order, so the result is the same on every platform. Takes the time of
    ``cosine_top_k`` in L dimensions: on a CPU about ten times that of ``hamming_top_k``.

    Args:
        query_codes: (..., Q, W) uint32 packed codes.
        dictionary_codes: (N, W) uint32 packed codes.
        weights: (L,) float32, beta of each bit, of any sign; only the first L bits count.
        k: K, at most N; static.

    Returns:
        Neighbours (..., Q, K), most similar first, ties to the lowest index.

    Raises:
        ValueError: shapes or types disagree, k is not within 1 to N, or there are more weights than
            bits.

    Source: [ICASSP20] section 5 (future work), with the weights of eq. 6.
    """
    blocks.check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)

    def search(queries: Array, entries: Array, weights: Array) -> SimilarNeighbors:
        def bipolar(words: Array) -> Array:
            bits = packing.unpack_bits(words, len(weights))
            return jnp.where(bits, jnp.float32(1), jnp.float32(-1))

        # [a = b] = (1 + a b) / 2 for bits -1 and +1; both sums are even or odd together.
        rounded = quantize_weights(weights)
        found = _top_k(bipolar(queries) * rounded[None, :], entries, k, bipolar)
        return found._replace(similarities=(jnp.sum(rounded) + found.similarities) / 2)

    arrays = map(jnp.asarray, (query_codes, dictionary_codes, weights))
    return blocks.search_rows(search, *arrays)


def quantize_weights(weights: Array) -> Array:
    """Weights rounded to multiples of 2^-24 of the power of two above the sum of their sizes.

    Every partial sum of such weights, with any signs, is a whole number of steps below 2^24, hence
    exact in float32. A weight moves by at most half a step: 6e-8 of the sum.

    Args:
        weights: (L,) float32, with L at most 2^12.

    Returns:
        (L,) float32.
    """
    # Rounding up may add half a step per weight; the margin keeps the sum below the power of two.
    total = jnp.sum(jnp.abs(weights)) * jnp.float32(1 + 2.0**-10)
    exponent = jnp.frexp(total)[1] - _MANTISSA_BITS
    return jnp.ldexp(jnp.round(jnp.ldexp(weights, -exponent)), exponent)


def _top_k(
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

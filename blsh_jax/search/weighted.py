"""Exact search by weighted agreement of bits: bounds by popcounts, then a proof, then a product.

Maximal sum_l beta_l [a_l = b_l] is minimal distance sum_l beta_l [a_l != b_l]. A popcount search by
a lower bound of the distance finds M > K candidates; every other code has a larger bound. If the
K-th distance among the candidates does not exceed the last bound, the K nearest are proven.
Queries without proof are searched again: with more candidates, at last by a matrix product.

Letters: M candidates, P bit planes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes
from blsh_jax.search import blocks, inner, popcount
from blsh_jax.search.blocks import Neighbors, SimilarNeighbors

_MANTISSA_BITS = 24
_FINE_PLANES = 5
_ENOUGH = 0.9  # the share of the weights that bases must keep, to be a good bound alone
_RETRY_BLOCK = 16
_PRODUCT_BLOCK = 256

_State = tuple[Neighbors, Array]  # neighbours of all queries; (Q,) bool, whether they are proven


class Scale(NamedTuple):
    """Weights of bits rounded down to base + unit * (a whole number of P bits), word by word.

    Attributes:
        base: (W,) uint32, the least weight of the word.
        unit: (W,) uint32.
        planes: (P, W) uint32, plane p has the bits whose whole number has bit P - 1 - p.
    """

    base: Array
    unit: Array
    planes: Array

    def measure(self, differing: Array, word: int) -> Array:
        """The sum of the rounded weights of the bits set in ``differing``, word w of a code."""
        level = jnp.zeros_like(differing)
        for plane in self.planes:
            level = level * 2 + jax.lax.population_count(differing & plane[word])
        return jax.lax.population_count(differing) * self.base[word] + level * self.unit[word]


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
        weights: (L,) float32, beta of each bit, of any sign; only the first L bits count.
        k: K, at most N; static.

    Returns:
        Neighbours, most similar first, ties to the lowest index.

    Raises:
        ValueError: shapes or types disagree, k is not within 1 to N, or there are more weights than
            bits.

    Source: [ICASSP20] section 5 (future work), with the weights of eq. 6.
    """
    blocks.check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)
    weights = jnp.asarray(weights)
    num_bits = weights.shape[0]
    queries, entries = (
        codes.prefix_codes(jnp.asarray(words), num_bits)
        for words in (query_codes, dictionary_codes)
    )
    # To agree under a weight below 0 is to differ, once the bit is turned over, under its opposite.
    below = weights < 0
    queries ^= codes.pack_bits(below)[None, :]
    steps, exponent = _whole_steps(jnp.abs(weights))
    found = jax.lax.platform_dependent(
        queries,
        entries,
        steps,
        cpu=partial(_top_k_by_popcounts, k=k),
        default=partial(_top_k_by_product, k=k),
    )
    largest = jnp.sum(jnp.where(below, jnp.zeros_like(steps), steps))
    agreement = largest - found.distances.astype(jnp.float32)
    return SimilarNeighbors(jnp.ldexp(agreement, exponent), found.indices)


def quantize_weights(weights: Array) -> Array:
    """Weights rounded to multiples of 2^-24 of the power of two above the sum of their sizes.

    Every partial sum of such weights, with any signs, is a whole number of steps below 2^24, hence
    exact in float32. A weight moves by at most half a step: 6e-8 of the sum.

    Args:
        weights: (L,) float32, with L at most 2^12.

    Returns:
        (L,) float32.
    """
    return jnp.sign(weights) * jnp.ldexp(*_whole_steps(jnp.abs(weights)))


def _whole_steps(weights: Array) -> tuple[Array, Array]:
    """(L,) whole numbers as float32, and the exponent of their step."""
    # Rounding up may add half a step per weight; the margin keeps the sum below the power of two.
    total = jnp.sum(weights) * jnp.float32(1 + 2.0**-10)
    exponent = jnp.frexp(total)[1] - _MANTISSA_BITS
    return jnp.round(jnp.ldexp(weights, -exponent)), exponent


def _top_k_by_product(queries: Array, entries: Array, steps: Array, k: int) -> Neighbors:
    """The K nearest codes by float32 products of vectors of -1 and +1."""

    def bipolar(words: Array) -> Array:
        return jnp.where(codes.unpack_bits(words, len(steps)), jnp.float32(1), jnp.float32(-1))

    # [a != b] = (1 - a b) / 2 for bits -1 and +1.
    found = inner.top_k(bipolar(queries) * steps[None, :], entries, k, bipolar)
    distances = (jnp.sum(steps) - found.similarities) / 2
    return Neighbors(distances.astype(jnp.int32), found.indices)


def _top_k_by_popcounts(queries: Array, entries: Array, steps: Array, k: int) -> Neighbors:
    """The K nearest codes by bounds and proofs."""
    return blocks.map_chunks(partial(_search_chunk, queries, steps=steps, k=k), entries, k)


def _search_chunk(queries: Array, chunk: Array, *, steps: Array, k: int) -> Neighbors:
    """The K nearest codes of a chunk: by bounds as fine as the weights ask for, or by a product."""
    few = 3 * k + 10
    many = blocks.power_of_two(few, popcount.COLUMNS, 1 << 30)
    layout = popcount.lay_out(chunk, many)
    exact = _scale(steps, _MANTISSA_BITS)

    def look(rows: Array, scale: Scale, count: int) -> _State:
        count = min(count, len(chunk))
        bounded = popcount.search_block(rows, layout, len(chunk), count, scale.measure)
        return _prove(rows, chunk, bounded, exact, k)

    def multiply(rows: Array) -> _State:
        return _top_k_by_product(rows, chunk, steps, k), jnp.ones(len(rows), bool)

    coarse, fine = _scale(steps, 0), _scale(steps, _FINE_PLANES)
    nothing = jnp.zeros((len(queries), k), jnp.int32)
    block = min(popcount.QUERY_BLOCK, len(queries))
    state = jax.lax.cond(
        _kept(coarse, steps) > _ENOUGH,
        lambda state: _settle(partial(look, scale=coarse, count=few), queries, state, block),
        lambda state: state,
        (Neighbors(nothing, nothing), jnp.zeros(len(queries), bool)),
    )
    # Less than half a block is cheaper in small blocks, even with many candidates.
    half = -(-block // 2)
    state = _settle(partial(look, scale=fine, count=few), queries, state, block, half)
    state = _settle(partial(look, scale=fine, count=many), queries, state, _RETRY_BLOCK)
    return _settle(multiply, queries, state, _PRODUCT_BLOCK)[0]


def _kept(scale: Scale, steps: Array) -> Array:
    """The share of the sum of the weights that the bases of the words keep."""
    bases = jnp.repeat(scale.base, codes.WORD_BITS)[: len(steps)]
    return jnp.sum(bases.astype(jnp.float32)) / jnp.maximum(jnp.sum(steps), 1)


def _prove(queries: Array, chunk: Array, bounded: Neighbors, exact: Scale, k: int) -> _State:
    """The K nearest of the candidates, and whether they are proven to be the nearest of all.

    Any other code comes after the last candidate in the order (bound, index), and its distance is
    no less than its bound.
    """
    indices = jnp.sort(bounded.indices, axis=1)  # so that ties keep the order of indices
    distances = jnp.zeros(indices.shape, jnp.uint32)
    for word in range(chunk.shape[1]):
        differing = chunk[:, word][indices] ^ queries[:, word][:, None]
        distances += exact.measure(differing, word)
    nearest, place = blocks.smallest(distances, k)
    found = Neighbors(nearest, jnp.take_along_axis(indices, place, axis=1))
    worst, last = (Neighbors(x.distances[:, -1], x.indices[:, -1]) for x in (found, bounded))
    tied = (worst.distances == last.distances) & (worst.indices <= last.indices)
    proven = (worst.distances < last.distances) | tied
    return found, proven | (indices.shape[1] == chunk.shape[0])


def _settle(
    search: Callable[[Array], _State],
    queries: Array,
    state: _State,
    size: int,
    least: int = 1,
) -> _State:
    """Search for the unproven queries, block by block, until a block is mostly left unproven.

    Args:
        search: from (B, W) queries to their neighbours and whether these are proven.
        queries: (Q, W) uint32.
        state: neighbours of all queries, and (Q,) bool, whether they are proven.
        size: B, at most; static.
        least: fewer queries than that are left unproven; static.

    Returns:
        The new state.
    """
    size = min(size, queries.shape[0])
    # The padding also keeps a lone block a slice: without, XLA fuses the gather of all queries into
    # the kernel of the search, which is then not vectorised.
    order = jnp.pad(jnp.argsort(state[1]), (0, size), mode="edge")
    left = jnp.sum(~state[1])

    def unfinished(carry) -> Array:
        first, useful, _ = carry
        return useful & (left - first >= least)

    def step(carry):
        first, _, (found, proven) = carry
        rows = jax.lax.dynamic_slice_in_dim(order, first, size)
        near, sure = search(queries[rows])
        found = jax.tree.map(lambda all_, new: all_.at[rows].set(new), found, near)
        state = found, proven.at[rows].set(sure)
        return first + size, 2 * jnp.sum(sure) >= size, state

    start = jnp.zeros((), left.dtype), jnp.ones((), bool), state
    return jax.lax.while_loop(unfinished, step, start)[2]


def _scale(steps: Array, num_planes: int) -> Scale:
    """Whole weights of bits, rounded down; exact with as many planes as the weights have bits."""
    num_words = codes.num_words(len(steps))
    unused = num_words * codes.WORD_BITS - len(steps)
    whole = jnp.pad(steps.astype(jnp.uint32), (0, unused), mode="edge")
    whole = whole.reshape(num_words, codes.WORD_BITS)
    base = jnp.min(whole, axis=1)
    excess = whole - base[:, None]
    levels = jnp.uint32(max((1 << num_planes) - 1, 1))
    unit = jnp.maximum((jnp.max(excess, axis=1) + levels - 1) // levels, 1)
    level = excess // unit[:, None]
    shifts = jnp.arange(num_planes, dtype=jnp.uint32)[::-1, None, None]
    planes = codes.pack_bits((level[None] >> shifts) & 1 == 1)[..., 0]
    return Scale(base, unit, planes)

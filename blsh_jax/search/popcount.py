"""Exact Hamming search by XOR and popcount: the path of CPUs and of all without a matrix path.

Every distance is computed once, inside one fused kernel that keeps only the minimum of each group
of consecutive codes. Only the K best groups are looked at again. Groups are themselves collected
into columns of consecutive groups, so that each selection sees a few hundred values.

Letters: C columns, T groups in a column, g codes in a group; code n = (c * T + t) * g + i.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search.blocks import (
    FAR,
    Neighbors,
    map_chunks,
    map_query_blocks,
    pad_rows,
    power_of_two,
    smallest,
)
from blsh_jax.search.groups import Measure, codes_by_group, count_bits, rescan

# The minima of 256 queries by 256 columns fill a quarter of a core's L2 cache, and the codes of one
# kernel, 16 words or a little more of each column, half of its L1 cache. Kernels of fewer words are
# bound by their launches and not always vectorised.
QUERY_BLOCK = 256
COLUMNS = 256
_UNROLLED_WORDS = 16


class Layout(NamedTuple):
    """A chunk of the dictionary in the two orders that the search reads.

    Attributes:
        tiles: (T, g / U, U * W, C) uint32: word w of code i of group t of every column, side by
            side for vector instructions; U codes of a group make one kernel.
        groups: (C * T, W, g) uint32: the codes of a group, side by side, for the second look.
    """

    tiles: Array
    groups: Array


def top_k(
    query_codes: Array, dictionary_codes: Array, k: int, query_block: int = QUERY_BLOCK
) -> Neighbors:
    """The K nearest codes, for checked arguments; see ``hamming_top_k``.

    Args:
        query_codes: (Q, W) uint32.
        dictionary_codes: (N, W) uint32.
        k: K; static.
        query_block: queries at a time: few where caches are small, thousands on a GPU; static.
    """
    block = min(query_block, query_codes.shape[0])
    search = partial(_search_chunk, query_codes, k=k, query_block=block)
    return map_chunks(search, dictionary_codes, k)


def _search_chunk(query_codes: Array, codes: Array, *, k: int, query_block: int) -> Neighbors:
    layout = lay_out(codes, k)
    search = partial(search_block, layout=layout, size=codes.shape[0], k=k)
    return map_query_blocks(search, query_codes, query_block)


def search_block(
    queries: Array, layout: Layout, size: int, k: int, measure: Measure = count_bits
) -> Neighbors:
    """The K nearest codes of a chunk to a block of queries.

    Args:
        queries: (Q, W) uint32.
        layout: of a chunk, for K or more neighbours.
        size: N of the chunk; static.
        k: K; static.
        measure: of the distance; static.
    """
    minima = _group_minima(queries, layout, measure)
    chosen = _nearest_groups(minima, size, layout.groups.shape[2], k)
    return rescan(queries, layout.groups, chosen, size, k, measure)


def lay_out(codes: Array, k: int) -> Layout:
    """The two orders of a chunk.

    Args:
        codes: (N, W) uint32.
        k: the most neighbours that will be asked for; static.
    """
    size, words = codes.shape
    unroll = power_of_two(-(-_UNROLLED_WORDS // words), 2, 16)
    group = power_of_two(size // 4096, unroll, 64)
    columns = power_of_two(k, COLUMNS, 1 << 30)
    depth = -(-size // (group * columns))
    # The barrier keeps XLA from padding anew within each transposition.
    padded = jax.lax.optimization_barrier(pad_rows(codes, columns * depth * group))
    tiles = padded.reshape(columns, depth, group // unroll, unroll * words)
    return Layout(tiles.transpose(1, 2, 3, 0), codes_by_group(padded, group))


def _group_minima(queries: Array, layout: Layout, measure: Measure) -> Array:
    """(T, Q, C) uint32, the smallest distance from every query to every group."""
    (num_queries, words), columns = queries.shape, layout.tiles.shape[-1]

    def kernel(minima: Array, rows: Array) -> tuple[Array, None]:
        # Without the barrier XLA fuses the slicing of the scan into the kernel, whose loop is then
        # no longer vectorised: ten times slower.
        rows = jax.lax.optimization_barrier(rows)
        for start in range(0, rows.shape[0], words):
            minima = jnp.minimum(minima, _distances(queries, rows[start : start + words], measure))
        return minima, None

    def tile(_: None, steps: Array) -> tuple[None, Array]:
        start = jnp.full((num_queries, columns), FAR, jnp.uint32)
        return None, jax.lax.scan(kernel, start, steps)[0]

    return jax.lax.scan(tile, None, layout.tiles)[1]


def _distances(queries: Array, rows: Array, measure: Measure) -> Array:
    """(Q, W) queries and (W, C) codes to (Q, C) uint32 distances, word by word."""
    total = jnp.zeros((queries.shape[0], rows.shape[1]), jnp.uint32)
    for word in range(rows.shape[0]):
        total += measure(queries[:, word][:, None] ^ rows[word][None, :], word)
    return total


def _nearest_groups(minima: Array, size: int, group: int, k: int) -> Array:
    """(Q, K) int32 ids of the groups that hold the K nearest codes, in increasing order."""
    depth, num_queries, columns = minima.shape
    ids = (
        jnp.arange(columns, dtype=jnp.int32)[None, :] * depth
        + jnp.arange(depth, dtype=jnp.int32)[:, None]
    )
    minima = jnp.where((ids * group < size)[:, None, :], minima, jnp.uint32(FAR))
    column = jnp.sort(smallest(jnp.min(minima, axis=0), k)[1], axis=1)
    row = jnp.arange(num_queries, dtype=jnp.int32)[:, None]
    candidates = minima.transpose(1, 2, 0)[row, column].reshape(num_queries, k * depth)
    place = jnp.sort(smallest(candidates, k)[1], axis=1)
    return jnp.take_along_axis(column, place // depth, axis=1) * depth + place % depth

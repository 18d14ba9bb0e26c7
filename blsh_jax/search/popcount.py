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
    varying,
)
from blsh_jax.search.groups import codes_by_group, rescan, sum_of_bits

# The minima of 256 queries by 256 columns fill a quarter of a core's L2 cache, and the codes of one
# kernel, 16 words or a little more of each column, half of its L1 cache. Kernels of fewer words are
# bound by their launches and not always vectorised.
_QUERY_BLOCK = 256
_COLUMNS = 256
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
    query_codes: Array, dictionary_codes: Array, k: int, query_block: int = _QUERY_BLOCK
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
    layout, size = _lay_out(codes, k), codes.shape[0]

    def search_block(queries: Array) -> Neighbors:
        minima = _group_minima(queries, layout.tiles)
        chosen = _nearest_groups(minima, size, layout.groups.shape[2], k)
        return rescan(queries, layout.groups, chosen, size, k)

    return map_query_blocks(search_block, query_codes, query_block)


def _lay_out(codes: Array, k: int) -> Layout:
    """The two orders of a chunk."""
    size, words = codes.shape
    unroll = power_of_two(-(-_UNROLLED_WORDS // words), 2, 16)
    group = power_of_two(size // 4096, unroll, 64)
    columns = power_of_two(k, _COLUMNS, 1 << 30)
    depth = -(-size // (group * columns))
    # The barrier keeps XLA from padding anew within each transposition.
    padded = jax.lax.optimization_barrier(pad_rows(codes, columns * depth * group))
    tiles = padded.reshape(columns, depth, group // unroll, unroll * words)
    return Layout(tiles.transpose(1, 2, 3, 0), codes_by_group(padded, group))


def _group_minima(queries: Array, tiles: Array) -> Array:
    """(T, Q, C) uint32, the smallest distance from every query to every group."""
    (num_queries, words), columns = queries.shape, tiles.shape[-1]
    farthest = varying(jnp.full((num_queries, columns), FAR, jnp.uint32), queries, tiles)

    def kernel(minima: Array, rows: Array) -> tuple[Array, None]:
        # Without the barrier XLA fuses the slicing of the scan into the kernel, whose loop is then
        # no longer vectorised: ten times slower.
        rows = jax.lax.optimization_barrier(rows)
        for start in range(0, rows.shape[0], words):
            differing = (queries[:, w, None] ^ rows[None, start + w] for w in range(words))
            minima = jnp.minimum(minima, sum_of_bits(differing))
        return minima, None

    def tile(_: None, steps: Array) -> tuple[None, Array]:
        return None, jax.lax.scan(kernel, farthest, steps)[0]

    return jax.lax.scan(tile, None, tiles)[1]


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

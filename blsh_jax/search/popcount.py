"""Exact Hamming search by XOR and popcount: the path of CPUs and of small dictionaries.

Every distance is computed once, inside one fused kernel that keeps only the minimum of each group
of consecutive codes. The K groups with the smallest minima (ties to the lowest group) hold the K
nearest codes: a code outside them is preceded, in the order (distance, index), by one code of each.
Only those K groups are looked at again. Groups are themselves collected into columns of consecutive
groups, so that each selection sees a few hundred values.

Letters: C columns, T groups in a column, g codes in a group; code n = (c * T + t) * g + i.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search.blocks import (
    FAR,
    Neighbors,
    map_query_blocks,
    merge,
    pad_rows,
    power_of_two,
    smallest,
)

_QUERY_BLOCK = 256  # with 256 columns, minima of one tile fill a quarter of a core's L2 cache
_COLUMNS = 256
_UNROLLED_WORDS = 16  # words per query in one kernel: fewer are bound by the launches, and 256
# columns of many more leave the L1 cache
_CHUNK = 1 << 20  # codes laid out at a time, which bounds the memory


class Layout(NamedTuple):
    """A chunk of the dictionary in the two orders that the search reads.

    Attributes:
        tiles: (T, g / U, U * W, C) uint32: word w of code i of group t of every column, side by
            side for vector instructions; U codes of a group make one kernel.
        groups: (C * T, W, g) uint32: the codes of a group, side by side, for the second look.
    """

    tiles: Array
    groups: Array


def top_k(query_codes: Array, dictionary_codes: Array, k: int) -> Neighbors:
    """The K nearest codes, for checked arguments; see ``hamming_top_k``."""
    size = dictionary_codes.shape[0]
    count = -(-size // _CHUNK)
    chunk = -(-size // count)
    padded = pad_rows(dictionary_codes, count * chunk).reshape(count, chunk, -1)
    starts = jnp.arange(count, dtype=jnp.int32) * chunk

    def step(best: Neighbors, item: tuple[Array, Array]) -> tuple[Neighbors, None]:
        start, codes = item
        found = _search_chunk(query_codes, codes, size - start, k)
        return merge(best, found._replace(indices=found.indices + start), k), None

    first = _search_chunk(query_codes, padded[0], jnp.int32(size), k)
    return jax.lax.scan(step, first, (starts[1:], padded[1:]))[0]


def _search_chunk(query_codes: Array, codes: Array, valid: Array, k: int) -> Neighbors:
    """Search one chunk, whose rows from ``valid`` on are padding."""
    words = codes.shape[1]
    unroll = power_of_two(-(-_UNROLLED_WORDS // words), 2, 16)
    group = power_of_two(codes.shape[0] // 4096, unroll, 64)
    layout = _lay_out(codes, group, unroll, power_of_two(k, _COLUMNS, 1 << 30))

    def search_block(queries: Array) -> Neighbors:
        minima = _group_minima(queries, layout.tiles, words)
        chosen = _nearest_groups(minima, valid, group, k)
        return _rescan(queries, layout.groups, chosen, valid, k)

    return map_query_blocks(search_block, query_codes, min(_QUERY_BLOCK, query_codes.shape[0]))


def _lay_out(codes: Array, group: int, unroll: int, columns: int) -> Layout:
    words = codes.shape[1]
    depth = -(-codes.shape[0] // (group * columns))
    padded = pad_rows(codes, columns * depth * group)
    tiles = padded.reshape(columns, depth, group // unroll, unroll * words)
    groups = padded.reshape(columns * depth, group, words)
    return Layout(tiles.transpose(1, 2, 3, 0), groups.transpose(0, 2, 1))


def _group_minima(queries: Array, tiles: Array, words: int) -> Array:
    """(T, Q, C) uint32, the smallest distance from every query to every group."""
    shape = (queries.shape[0], tiles.shape[-1])

    def kernel(minima: Array, rows: Array) -> tuple[Array, None]:
        # Without the barrier XLA fuses the slicing of the scan into the kernel, whose loop is then
        # no longer vectorised: ten times slower.
        rows = jax.lax.optimization_barrier(rows)
        for start in range(0, rows.shape[0], words):
            minima = jnp.minimum(minima, _distances(queries, rows[start : start + words]))
        return minima, None

    def tile(_: None, steps: Array) -> tuple[None, Array]:
        return None, jax.lax.scan(kernel, jnp.full(shape, FAR, jnp.uint32), steps)[0]

    return jax.lax.scan(tile, None, tiles)[1]


def _distances(queries: Array, rows: Array) -> Array:
    """(Q, W) queries and (W, C) codes to (Q, C) uint32 distances, word by word."""
    total = jnp.zeros((queries.shape[0], rows.shape[1]), jnp.uint32)
    for word in range(rows.shape[0]):
        total += jax.lax.population_count(queries[:, word][:, None] ^ rows[word][None, :])
    return total


def _nearest_groups(minima: Array, valid: Array, group: int, k: int) -> Array:
    """(Q, K) int32 ids of the groups that hold the K nearest codes, in increasing order."""
    depth, num_queries, columns = minima.shape
    ids = (
        jnp.arange(columns, dtype=jnp.int32)[None, :] * depth
        + jnp.arange(depth, dtype=jnp.int32)[:, None]
    )
    minima = jnp.where((ids * group < valid)[:, None, :], minima, jnp.uint32(FAR))
    column = jnp.sort(smallest(jnp.min(minima, axis=0), k)[1], axis=1)
    row = jnp.arange(num_queries, dtype=jnp.int32)[:, None]
    candidates = minima.transpose(1, 2, 0)[row, column].reshape(num_queries, k * depth)
    place = jnp.sort(smallest(candidates, k)[1], axis=1)
    return jnp.take_along_axis(column, place // depth, axis=1) * depth + place % depth


def _rescan(queries: Array, groups: Array, chosen: Array, valid: Array, k: int) -> Neighbors:
    """The K nearest codes within the chosen groups of every query."""
    num_queries, group = chosen.shape[0], groups.shape[2]
    near = groups[chosen]
    total = jnp.zeros((num_queries, chosen.shape[1], group), jnp.uint32)
    for word in range(groups.shape[1]):
        total += jax.lax.population_count(near[:, :, word] ^ queries[:, word][:, None, None])
    index = chosen[:, :, None] * group + jnp.arange(group, dtype=jnp.int32)[None, None, :]
    total = jnp.where(index < valid, total, jnp.uint32(FAR))
    nearest, place = smallest(total.reshape(num_queries, -1), k)
    return Neighbors(nearest, jnp.take_along_axis(index.reshape(num_queries, -1), place, axis=1))

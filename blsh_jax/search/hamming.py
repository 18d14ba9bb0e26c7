"""Exact Hamming search by XOR and popcount, whatever the platform.

Every distance is computed once, inside one fused kernel that keeps only the minimum of each group
of consecutive codes. The K groups with the smallest minima, ties to the lowest group, hold the K
nearest codes: any code outside them is preceded, in the order (distance, index), by one code of
each. Only these groups are looked at again. Groups are themselves collected into columns of
consecutive groups, so that each selection sees a few hundred values.

Letters: C columns, T groups in a column, g codes in a group; code n = (c * T + t) * g + i.
"""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search import blocks, packing
from blsh_jax.search.blocks import Neighbors, map_query_blocks, pad_rows, smallest, varying

# A distance beyond that of any code, weighted or not, small enough to be exact in float32.
_FAR = 1 << 24

_CHUNK = 1 << 20  # codes of a dictionary that are laid out at a time
# The minima of 256 queries by 256 columns fill a quarter of a core's L2 cache, and the codes of one
# kernel, 16 words or a little more of each column, half of its L1 cache. Kernels of fewer words are
# bound by their launches and not always vectorised.
_QUERY_BLOCK = 256
_ACCELERATOR_QUERY_BLOCK = 4096
_COLUMNS = 256
_UNROLLED_WORDS = 16


@partial(jax.jit, static_argnames=("k", "num_bits"))
def hamming_top_k(
    query_codes: Array, dictionary_codes: Array, k: int, num_bits: int | None = None
) -> Neighbors:
    """The K dictionary codes at the smallest Hamming distance from every query.

    Memory does not grow with Q * N. May be called inside jit, vmap, scan and shard_map. Queries
    that are cut along a mesh axis of type Explicit stay so, each device searching for its own; an
    axis of type Auto leaves that to the compiler, so prefer ``jax.shard_map`` there.

    Args:
        query_codes: (..., Q, W) uint32 packed codes.
        dictionary_codes: (N, W) uint32 packed codes.
        k: K, at most N; static.
        num_bits: search with the first ``num_bits`` bits only, without repacking; static.

    Returns:
        Exact neighbours (..., Q, K), nearest first, ties to the lowest index.

    Raises:
        ValueError: shapes or types disagree, k is not within 1 to N, or num_bits is longer than the
            codes.

    Source: [ICASSP20] Algorithm 1 with Hamming similarity (section 2.2).
    """
    blocks.check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)

    def search(*codes: Array) -> Neighbors:
        if num_bits is not None:
            codes = tuple(packing.prefix_codes(words, num_bits) for words in codes)
        # Few queries at a time where caches are small; chosen when the function is compiled.
        sizes = {"cpu": _QUERY_BLOCK, "default": _ACCELERATOR_QUERY_BLOCK}
        paths = {name: partial(top_k, k=k, query_block=size) for name, size in sizes.items()}
        return jax.lax.platform_dependent(*codes, **paths)

    return blocks.search_rows(search, jnp.asarray(query_codes), jnp.asarray(dictionary_codes))


def top_k(query_codes: Array, dictionary_codes: Array, k: int, query_block: int) -> Neighbors:
    """``hamming_top_k`` of checked matrices, chunk by chunk, which bounds the memory."""
    block = min(query_block, query_codes.shape[0])
    search = partial(_search_chunk, query_codes, k=k, query_block=block)
    size = dictionary_codes.shape[0]
    count = -(-size // _CHUNK)
    length = size // count
    head = size - (count - 1) * length
    first = search(dictionary_codes[:head])
    if count == 1:
        return first

    def step(best: Neighbors, start: Array) -> tuple[Neighbors, None]:
        found = search(jax.lax.dynamic_slice_in_dim(dictionary_codes, start, length))
        # Every index of the best so far is below those of the chunk, so ties keep their order.
        distances = jnp.concatenate([best.distances, found.distances], axis=1)
        indices = jnp.concatenate([best.indices, found.indices + start], axis=1)
        nearest, places = smallest(distances, k)
        return Neighbors(nearest, jnp.take_along_axis(indices, places, axis=1)), None

    return jax.lax.scan(step, first, jnp.arange(head, size, length, dtype=jnp.int32))[0]


class _Layout(NamedTuple):
    """A chunk of the dictionary in the two orders that the search reads.

    Attributes:
        tiles: (T, g / U, U * W, C) uint32: word w of code i of group t of every column, side by
            side for vector instructions; U codes of a group make one kernel.
        groups: (C * T, W, g) uint32: the codes of a group, side by side, for the second look.
    """

    tiles: Array
    groups: Array


def _search_chunk(query_codes: Array, codes: Array, *, k: int, query_block: int) -> Neighbors:
    layout, size = _lay_out(codes, k), codes.shape[0]

    def search_block(queries: Array) -> Neighbors:
        minima = _group_minima(queries, layout.tiles)
        chosen = _nearest_groups(minima, size, layout.groups.shape[2], k)
        return _rescan(queries, layout.groups, chosen, size, k)

    return map_query_blocks(search_block, query_codes, query_block)


def _lay_out(codes: Array, k: int) -> _Layout:
    """The two orders of a chunk."""
    size, words = codes.shape
    unroll = _power_of_two(-(-_UNROLLED_WORDS // words), 2, 16)
    group = _power_of_two(size // 4096, unroll, 64)
    columns = _power_of_two(k, _COLUMNS, 1 << 30)
    depth = -(-size // (group * columns))
    # The barrier keeps XLA from padding anew within each transposition.
    padded = jax.lax.optimization_barrier(pad_rows(codes, columns * depth * group))
    tiles = padded.reshape(columns, depth, group // unroll, unroll * words)
    groups = padded.reshape(-1, group, words).transpose(0, 2, 1)
    return _Layout(tiles.transpose(1, 2, 3, 0), groups)


def _group_minima(queries: Array, tiles: Array) -> Array:
    """(T, Q, C) uint32, the smallest distance from every query to every group."""
    (num_queries, words), columns = queries.shape, tiles.shape[-1]
    farthest = varying(jnp.full((num_queries, columns), _FAR, jnp.uint32), queries, tiles)

    def kernel(minima: Array, rows: Array) -> tuple[Array, None]:
        # Without the barrier XLA fuses the slicing of the scan into the kernel, whose loop is then
        # no longer vectorised: ten times slower.
        rows = jax.lax.optimization_barrier(rows)
        for start in range(0, rows.shape[0], words):
            differing = (queries[:, w, None] ^ rows[None, start + w] for w in range(words))
            minima = jnp.minimum(minima, _sum_of_bits(differing))
        return minima, None

    def tile(_: None, steps: Array) -> tuple[None, Array]:
        return None, jax.lax.scan(kernel, farthest, steps)[0]

    return jax.lax.scan(tile, None, tiles)[1]


def _nearest_groups(minima: Array, size: int, group: int, k: int) -> Array:
    """(Q, K) int32 ids of the groups that hold the K nearest codes, in increasing order."""
    depth, num_queries, columns = minima.shape
    ids = jnp.arange(columns * depth, dtype=jnp.int32).reshape(columns, depth).T
    minima = jnp.where((ids * group < size)[:, None, :], minima, jnp.uint32(_FAR))
    column = jnp.sort(smallest(jnp.min(minima, axis=0), k)[1], axis=1)
    row = jnp.arange(num_queries, dtype=jnp.int32)[:, None]
    candidates = minima.transpose(1, 2, 0)[row, column].reshape(num_queries, k * depth)
    place = jnp.sort(smallest(candidates, k)[1], axis=1)
    return jnp.take_along_axis(column, place // depth, axis=1) * depth + place % depth


def _rescan(queries: Array, groups: Array, chosen: Array, size: int, k: int) -> Neighbors:
    """The K nearest codes within the chosen groups of every query.

    Args:
        queries: (Q, W) uint32.
        groups: as in ``_Layout``.
        chosen: (Q, K) int32 ids of groups, in increasing order, so that ties keep theirs.
        size: codes of the chunk without its padding; static.
        k: K; static.
    """
    num_queries, group = chosen.shape[0], groups.shape[2]
    near = groups[chosen]
    total = _sum_of_bits(near[:, :, w] ^ queries[:, w, None, None] for w in range(groups.shape[1]))
    index = chosen[:, :, None] * group + jnp.arange(group, dtype=jnp.int32)[None, None, :]
    total = jnp.where(index < size, total, jnp.uint32(_FAR))
    nearest, place = smallest(total.reshape(num_queries, -1), k)
    return Neighbors(nearest, jnp.take_along_axis(index.reshape(num_queries, -1), place, axis=1))


def _sum_of_bits(words: Iterable[Array]) -> Array:
    """How many bits are set in words of the same shape, uint32; one word after the other."""
    return sum(jnp.bitwise_count(x).astype(jnp.uint32) for x in words)  # type: ignore[return-value]


def _power_of_two(value: int, lowest: int, highest: int) -> int:
    """The power of two at or above ``value``, kept within two other powers of two."""
    return min(max(1 << max(value - 1, 0).bit_length(), lowest), highest)

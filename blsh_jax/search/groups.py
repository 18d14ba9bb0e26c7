"""The second look: exact neighbours from the groups whose best codes are nearest.

Groups are runs of g consecutive codes. The K groups with the smallest minima, ties to the lowest
group, hold the K nearest codes: any code outside them is preceded, in the order (distance, index),
by one code of each.
"""

from collections.abc import Iterable

import jax.numpy as jnp
from jax import Array

from blsh_jax.search.blocks import FAR, Neighbors, smallest


def sum_of_bits(words: Iterable[Array]) -> Array:
    """How many bits are set in words of the same shape, uint32; one word after the other."""
    return sum(jnp.bitwise_count(x).astype(jnp.uint32) for x in words)  # type: ignore[return-value]


def codes_by_group(codes: Array, group: int) -> Array:
    """(N, W) codes, N a multiple of g, to (N / g, W, g): a word of all codes side by side."""
    return codes.reshape(-1, group, codes.shape[1]).transpose(0, 2, 1)


def rescan(queries: Array, groups: Array, chosen: Array, size: int, k: int) -> Neighbors:
    """The K nearest codes within the chosen groups of every query.

    Args:
        queries: (Q, W) uint32.
        groups: (N / g, W, g) uint32.
        chosen: (Q, K) int32 ids of groups, in increasing order, so that ties keep theirs.
        size: N without the padding at the end; static.
        k: K; static.

    Returns:
        Exact neighbours.
    """
    num_queries, group = chosen.shape[0], groups.shape[2]
    near = groups[chosen]
    total = sum_of_bits(near[:, :, w] ^ queries[:, w, None, None] for w in range(groups.shape[1]))
    index = chosen[:, :, None] * group + jnp.arange(group, dtype=jnp.int32)[None, None, :]
    total = jnp.where(index < size, total, jnp.uint32(FAR))
    nearest, place = smallest(total.reshape(num_queries, -1), k)
    return Neighbors(nearest, jnp.take_along_axis(index.reshape(num_queries, -1), place, axis=1))

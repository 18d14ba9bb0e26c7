"""The second look: exact neighbours from the groups whose best codes are nearest.

Groups are runs of g consecutive codes. The K groups with the smallest minima, ties to the lowest
group, hold the K nearest codes: any code outside them is preceded, in the order (distance, index),
by one code of each.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search.blocks import FAR, Neighbors, smallest

# From the bits in which word w of two codes differs, and w, to what they add to the distance.
Measure = Callable[[Array, int], Array]


def count_bits(differing: Array, word: int) -> Array:
    """The measure of the Hamming distance: one for every bit."""
    del word
    return jax.lax.population_count(differing)


def codes_by_group(codes: Array, group: int) -> Array:
    """(N, W) codes, N a multiple of g, to (N / g, W, g): a word of all codes side by side."""
    return codes.reshape(-1, group, codes.shape[1]).transpose(0, 2, 1)


def rescan(
    queries: Array,
    groups: Array,
    chosen: Array,
    size: int,
    k: int,
    measure: Measure = count_bits,
) -> Neighbors:
    """The K nearest codes within the chosen groups of every query.

    Args:
        queries: (Q, W) uint32.
        groups: (N / g, W, g) uint32.
        chosen: (Q, K) int32 ids of groups, in increasing order, so that ties keep theirs.
        size: N without the padding at the end; static.
        k: K; static.
        measure: of the distance; static.

    Returns:
        Exact neighbours.
    """
    num_queries, group = chosen.shape[0], groups.shape[2]
    near = groups[chosen]
    total = jnp.zeros((num_queries, chosen.shape[1], group), jnp.uint32)
    for word in range(groups.shape[1]):
        total += measure(near[:, :, word] ^ queries[:, word][:, None, None], word)
    index = chosen[:, :, None] * group + jnp.arange(group, dtype=jnp.int32)[None, None, :]
    total = jnp.where(index < size, total, jnp.uint32(FAR))
    nearest, place = smallest(total.reshape(num_queries, -1), k)
    return Neighbors(nearest, jnp.take_along_axis(index.reshape(num_queries, -1), place, axis=1))

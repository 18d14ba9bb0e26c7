"""Exact Hamming search by a product of +-1 matrices: the path of Hopper's tensor cores.

For codes as vectors of -1 and +1, distance = (L - a . b) / 2. A product written to memory would be
bound by its 4 bytes per pair, so one Mosaic GPU kernel takes the product and keeps only the maximum
of each group of consecutive codes. The K best groups are then looked at again with popcounts.

Letters: g codes in a group; M rows of queries per warpgroup and step.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from blsh_jax.search import packing
from blsh_jax.search.blocks import (
    FAR,
    Neighbors,
    map_chunks,
    map_query_blocks,
    pad_rows,
    power_of_two,
    smallest,
)
from blsh_jax.search.groups import codes_by_group, rescan

_QUERY_BLOCK = 8192
_GROUP = 128
_CONSUMERS = 2
_SHARED_MEMORY = 220 * 1024
MAX_WORDS = 12  # longer codes leave no shared memory for the queries beside a group


def top_k(query_codes: Array, dictionary_codes: Array, k: int, interpret: Any = None) -> Neighbors:
    """The K nearest codes, for checked arguments; see ``hamming_top_k``.

    Args:
        query_codes: (Q, W) uint32.
        dictionary_codes: (N, W) uint32.
        k: K; static.
        interpret: Pallas interpreter parameters, to run without the device; static.
    """
    search = partial(_search_chunk, query_codes, k=k, interpret=interpret)
    return map_chunks(search, dictionary_codes, k)


def _search_chunk(query_codes: Array, chunk: Array, *, k: int, interpret: Any) -> Neighbors:
    size = chunk.shape[0]
    num_groups = max(-(-size // _GROUP), k)
    padded = pad_rows(chunk, num_groups * _GROUP)
    vectors, groups = _bipolar(padded), codes_by_group(padded, _GROUP)
    starts = jnp.arange(num_groups, dtype=jnp.int32) * _GROUP

    def search_block(queries: Array) -> Neighbors:
        best = group_maxima(_bipolar(queries), vectors, interpret).T
        # Any decreasing function of the product selects the same groups.
        distances = jnp.where((starts < size)[None, :], -best.astype(jnp.int32), jnp.int32(FAR))
        chosen = jnp.sort(smallest(distances, k)[1], axis=1)
        return rescan(queries, groups, chosen, size, k)

    block = power_of_two(query_codes.shape[0], 256, _QUERY_BLOCK)
    return map_query_blocks(search_block, query_codes, block)


def _bipolar(words: Array) -> Array:
    """(N, W) packed words to (N, 32 W) vectors of -1 and +1."""
    bits = packing.unpack_bits(words, words.shape[1] * packing.WORD_BITS)
    return jnp.where(bits, jnp.bfloat16(1), jnp.bfloat16(-1))


def group_maxima(queries: Array, vectors: Array, interpret: Any = None) -> Array:
    """The largest inner product of every query with every group of consecutive vectors.

    Two warpgroups multiply and take maxima in turn, so that one's maxima hide behind the other's
    product; a third one feeds both. A block of the grid keeps one group and sees all queries.

    Args:
        queries: (Q, L) bfloat16 of -1 and +1; Q a multiple of 256, L of 32 and at most 32 times
            MAX_WORDS.
        vectors: (N, L) likewise; N a multiple of g.
        interpret: Pallas interpreter parameters; static.

    Returns:
        (N / g, Q) float32.
    """
    (num_queries, length), num_groups = queries.shape, vectors.shape[0] // _GROUP
    bytes_per_row = length * queries.dtype.itemsize
    # Shared memory holds one group and one or more steps of queries; long codes take half steps.
    space = _SHARED_MEMORY // bytes_per_row - _GROUP
    wide = 128 if space >= 2 * _CONSUMERS * 128 else 64
    rows = _CONSUMERS * wide
    num_steps = num_queries // rows
    slots = min(num_steps, space // rows, 4)
    swizzle = 128 if bytes_per_row % 128 == 0 else 64
    transforms = (
        plgpu.TilingTransform((8, swizzle // queries.dtype.itemsize)),
        plgpu.SwizzleTransform(swizzle),
    )

    def kernel(query_ref, vector_ref, out_ref, query_smem, group_smem, out_smem, *barriers):
        filled, group_filled, consumed = barriers
        consumer, group = jax.lax.axis_index("warpgroup"), jax.lax.axis_index("group")

        def fetch(step, slot):
            source = query_ref.at[pl.ds(step * rows, rows)]
            plgpu.copy_gmem_to_smem(source, query_smem.at[slot], filled.at[slot])

        @pl.when(consumer < _CONSUMERS)
        def _multiply():
            plgpu.set_max_registers(232, action="increase")
            plgpu.barrier_wait(group_filled)

            @pl.loop(0, num_steps)
            def _step(step):
                slot, parity = jax.lax.rem(step, slots), jax.lax.rem(step, 2)
                plgpu.barrier_wait(filled.at[slot])
                mine = query_smem.at[slot, pl.ds(consumer * wide, wide)]

                def multiply(accumulator):
                    plgpu.wgmma(accumulator, mine, group_smem)
                    return accumulator[...]

                product = pl.run_scoped(multiply, plgpu.ACC((wide, _GROUP), jnp.float32))
                plgpu.barrier_arrive(consumed.at[slot])
                best = jnp.max(product, axis=1)
                plgpu.wait_smem_to_gmem(1, wait_read_only=True)
                out_smem[consumer, parity] = best
                plgpu.commit_smem()
                target = out_ref.at[group, pl.ds(step * rows + consumer * wide, wide)]
                plgpu.copy_smem_to_gmem(out_smem.at[consumer, parity], target)

            plgpu.wait_smem_to_gmem(0)

        @pl.when(consumer == _CONSUMERS)
        def _feed():
            plgpu.set_max_registers(40, action="decrease")
            source = vector_ref.at[:, pl.ds(group * _GROUP, _GROUP)]
            plgpu.copy_gmem_to_smem(source, group_smem, group_filled)
            for slot in range(slots):
                fetch(slot, slot)

            @pl.loop(0, num_steps)
            def _step(step):
                slot = jax.lax.rem(step, slots)
                plgpu.barrier_wait(consumed.at[slot])
                pl.when(step + slots < num_steps)(lambda: fetch(step + slots, slot))

    return plgpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct((num_groups, num_queries), jnp.float32),
        grid=(num_groups,),
        grid_names=("group",),
        num_threads=_CONSUMERS + 1,
        thread_name="warpgroup",
        scratch_types=[
            plgpu.SMEM((slots, rows, length), queries.dtype, transforms=transforms),
            plgpu.SMEM((length, _GROUP), queries.dtype, transforms=transforms),
            plgpu.SMEM((_CONSUMERS, 2, wide), jnp.float32),
            plgpu.Barrier(num_barriers=slots),
            plgpu.Barrier(),
            plgpu.Barrier(num_arrivals=_CONSUMERS, num_barriers=slots),
        ],
        **({} if interpret is None else {"interpret": interpret}),
    )(queries, vectors.T)

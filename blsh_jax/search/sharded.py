"""Exact Hamming search over a mesh of devices: dictionary along one axis, queries along another."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from blsh_jax.search import blocks
from blsh_jax.search.blocks import Neighbors
from blsh_jax.search.hamming import Prepared, codes_of, hamming_top_k


def sharded_hamming_top_k(
    query_codes: Array,
    dictionary_codes: Array | Prepared,
    k: int,
    mesh: Mesh,
    query_axis: str = "queries",
    dictionary_axis: str = "dictionary",
) -> Neighbors:
    """``hamming_top_k`` over a mesh: every device searches its part of the dictionary.

    The only communication is one all-gather of K distances and indices per query and device of the
    dictionary axis. May be called inside jit.

    Args:
        query_codes: (Q, W) uint32; Q a multiple of the size of the query axis.
        dictionary_codes: (N, W) uint32, N a multiple of the size of the dictionary axis; or what
            ``prepare`` made of them for the same mesh and axis.
        k: K, at most the part of the dictionary on one device; static.
        mesh: the devices; static.
        query_axis: name of the mesh axis that queries are cut along.
        dictionary_axis: name of the mesh axis that the dictionary is cut along.

    Returns:
        Exact neighbours, the same as those of ``hamming_top_k``, cut along the query axis.

    Raises:
        ValueError: the mesh has no axis of such a name, sizes are not such multiples, or as for
            ``hamming_top_k``.
    """
    codes = codes_of(dictionary_codes)
    blocks.check(query_codes, codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)
    if query_codes.ndim != 2:
        raise ValueError(f"query_codes has shape {query_codes.shape}: give one matrix of rows")
    if not {query_axis, dictionary_axis} <= set(mesh.axis_names):
        raise ValueError(
            f"the mesh has the axes {mesh.axis_names}: name two of them as query_axis and "
            "dictionary_axis"
        )
    blocks.check_multiple("query_codes", query_codes.shape[0], mesh.shape[query_axis])
    blocks.check_multiple("dictionary_codes", codes.shape[0], mesh.shape[dictionary_axis])
    cut = PartitionSpec(query_axis), PartitionSpec(dictionary_axis)
    shardings = tuple(NamedSharding(mesh, spec) for spec in cut)
    queries = jax.device_put(query_codes, shardings[0])
    return _search(queries, jax.device_put(dictionary_codes, shardings[1]), k, mesh, *cut)


@partial(jax.jit, static_argnames=("k", "mesh", "query_cut", "dictionary_cut"))
def _search(
    query_codes: Array,
    dictionary_codes: Array | Prepared,
    k: int,
    mesh: Mesh,
    query_cut: PartitionSpec,
    dictionary_cut: PartitionSpec,
) -> Neighbors:
    axis = dictionary_cut[0]
    part = codes_of(dictionary_codes).shape[0] // mesh.shape[axis]

    def search_part(queries: Array, codes: Array | Prepared) -> Neighbors:
        found = hamming_top_k(queries, codes, k)
        start = jax.lax.axis_index(axis).astype(jnp.int32) * part
        mine = jnp.stack([found.distances, found.indices + start])
        # Shards stand in the order of their indices, so the stable selection keeps the lowest.
        every = jax.lax.all_gather(mine, axis, axis=2, tiled=True)
        nearest, places = blocks.smallest(every[0], k)
        return Neighbors(nearest, jnp.take_along_axis(every[1], places, axis=1))

    return jax.shard_map(
        search_part,
        mesh=mesh,
        in_specs=(query_cut, dictionary_cut),
        out_specs=query_cut,
        check_vma=False,
    )(query_codes, dictionary_codes)

"""Exact Hamming search over a mesh of devices: dictionary along one axis, queries along another."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from blsh_jax.search import blocks
from blsh_jax.search.blocks import Neighbors
from blsh_jax.search.hamming import hamming_top_k


def sharded_hamming_top_k(
    query_codes: Array,
    dictionary_codes: Array,
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
        dictionary_codes: (N, W) uint32; N a multiple of the size of the dictionary axis.
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
    blocks.check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)
    if query_codes.ndim != 2:
        raise ValueError(f"query_codes has shape {query_codes.shape}: give one matrix of rows")
    if not {query_axis, dictionary_axis} <= set(mesh.axis_names):
        raise ValueError(
            f"the mesh has the axes {mesh.axis_names}: name two of them as query_axis and "
            "dictionary_axis"
        )
    _check_multiple("query_codes", query_codes.shape[0], mesh.shape[query_axis])
    _check_multiple("dictionary_codes", dictionary_codes.shape[0], mesh.shape[dictionary_axis])
    specs = PartitionSpec(query_axis, None), PartitionSpec(dictionary_axis, None)
    placed = jax.device_put(
        (query_codes, dictionary_codes), tuple(NamedSharding(mesh, spec) for spec in specs)
    )
    return _search(*placed, k, mesh, specs)


@partial(jax.jit, static_argnames=("k", "mesh", "specs"))
def _search(
    query_codes: Array,
    dictionary_codes: Array,
    k: int,
    mesh: Mesh,
    specs: tuple[PartitionSpec, PartitionSpec],
) -> Neighbors:
    axis = specs[1][0]
    part = dictionary_codes.shape[0] // mesh.shape[axis]

    def search_part(queries: Array, codes: Array) -> Neighbors:
        found = hamming_top_k(queries, codes, k)
        start = jax.lax.axis_index(axis).astype(jnp.int32) * part
        mine = jnp.stack([found.distances, found.indices + start])
        # Shards stand in the order of their indices, so the stable selection keeps the lowest.
        every = jax.lax.all_gather(mine, axis, axis=2, tiled=True)
        nearest, places = blocks.smallest(every[0], k)
        return Neighbors(nearest, jnp.take_along_axis(every[1], places, axis=1))

    return jax.shard_map(
        search_part, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False
    )(query_codes, dictionary_codes)


def _check_multiple(name: str, size: int, parts: int) -> None:
    if size % parts:
        raise ValueError(f"{name} has {size} rows: pad them to a multiple of {parts} devices")

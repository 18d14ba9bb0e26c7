"""Exact Hamming search by XOR and popcount, whatever the platform.

Every distance is computed once, in one fused kernel that keeps only the minimum of each group of
consecutive codes. The K groups with the smallest minima, ties to the lowest group, hold the K
nearest codes: any code outside them is preceded, in the order (distance, index), by one code of
each. Only these groups are looked at again. Groups are themselves collected into columns of
consecutive groups, so that each selection sees few values.

The kernel reads the dictionary in an order of its own (``Prepared``), in which neighbouring vector
lanes hold neighbouring lines of codes. On CPUs a lane is a byte: XLA turns a popcount of bytes into
few instructions of any vector unit, and a distance of up to 254 is a byte as well.

Letters: C lanes, M rows of groups, u codes in a group, G rows in a column: M a multiple of G. Code
n = (c * M + m) * u + i is code i of the group in row m and lane c.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from blsh_jax.search import blocks, native, packing
from blsh_jax.search.blocks import Neighbors

_MOST_LANES = 512  # C; with the codes of a group, 40 kB, about what fits a core's L1 cache
_LEAST_ROWS = 8  # M; small dictionaries get fewer lanes
_UNROLLED_BYTES = 80  # of the codes of a group; the stores of fewer take time
_FEW_QUERIES = 8  # fewer go through a kernel over the whole dictionary at once
_MINIMA = 1 << 24  # of a block of queries, so that they stay in caches
_MOST_QUERIES = 512  # of a block
_LANES_OF_A_SUM = 31  # bytes with so many bits set add up to less than 256


class Prepared(NamedTuple):
    """A dictionary laid out once for many searches; a pytree.

    Attributes:
        codes: (N, W) uint32, as given: of JAX or of NumPy.
        tiles: (M, u * W * 4, C) uint8, or (M, u * W, C) uint32 on accelerators: the same codes in
            the order that the search reads, the last one repeated.
    """

    codes: Array
    tiles: Array


def prepare(
    codes: Array | np.ndarray, mesh: Mesh | None = None, dictionary_axis: str = "dictionary"
) -> Prepared:
    """Lay a dictionary out for many searches, which then cost one pass over it.

    Every search without preparation does the same first. May be called inside jit. Arrays of NumPy
    stay on the host, and nothing is compiled for them.

    Args:
        codes: (N, W) uint32 packed codes.
        mesh: the devices of a ``sharded_hamming_top_k``, each of which gets a part.
        dictionary_axis: the axis of the mesh that the dictionary is cut along; N is a multiple of
            its size.

    Returns:
        What the searches by Hamming distance take in the place of the codes; it takes about as
        much memory again.

    Raises:
        ValueError: ``codes`` is no matrix of uint32.
    """
    if codes.dtype != np.uint32 or codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes is {codes.dtype} {codes.shape}: give a matrix of uint32")
    lane = np.uint8 if jax.default_backend() == "cpu" else np.uint32
    if mesh is None:
        return Prepared(codes, _tiles(codes, lane))  # type: ignore[arg-type]
    blocks.check_multiple("codes", codes.shape[0], mesh.shape[dictionary_axis])
    cut = PartitionSpec(dictionary_axis)
    run = jax.shard_map(
        lambda part: Prepared(part, _tiles(part, lane)),
        mesh=mesh,
        in_specs=cut,
        out_specs=cut,
        check_vma=False,
    )
    return run(jax.device_put(codes, NamedSharding(mesh, cut)))


@partial(jax.jit, static_argnames=("k", "num_bits"))
def hamming_top_k(
    query_codes: Array, dictionary_codes: Array | Prepared, k: int, num_bits: int | None = None
) -> Neighbors:
    """The K dictionary codes at the smallest Hamming distance from every query.

    Memory does not grow with Q * N. May be called inside jit, vmap, scan and shard_map. Queries
    that are cut along a mesh axis of type Explicit stay so, each device searching for its own; an
    axis of type Auto leaves that to the compiler, so prefer ``jax.shard_map`` there.

    Args:
        query_codes: (..., Q, W) uint32 packed codes.
        dictionary_codes: (N, W) uint32 packed codes, or what ``prepare`` made of them.
        k: K, at most N; static.
        num_bits: search with the first ``num_bits`` bits only, without repacking; static.

    Returns:
        Exact neighbours (..., Q, K), nearest first, ties to the lowest index.

    Raises:
        ValueError: shapes or types disagree, k is not within 1 to N, num_bits is longer than the
            codes, or the dictionary was prepared from other codes.

    Source: [ICASSP20] Algorithm 1 with Hamming similarity (section 2.2).
    """
    given = dictionary_codes if isinstance(dictionary_codes, Prepared) else None
    codes = codes_of(dictionary_codes)
    blocks.check(query_codes, codes, k, ("query_codes", "dictionary_codes"), jnp.uint32)
    available = codes.shape[1] * packing.WORD_BITS
    packing.check_num_bits(available if num_bits is None else num_bits, available)
    length = num_bits or available
    if given is not None and given.tiles.shape != _shape(codes, given.tiles.dtype):
        raise ValueError(
            f"tiles has shape {given.tiles.shape}, made of other codes than those beside it, "
            f"{codes.shape}: prepare them anew"
        )

    def by_xla(lane: type, queries: Array, codes: Array, tiles: Array | None) -> Neighbors:
        prepared = Prepared(codes, _tiles(codes, lane) if tiles is None else tiles)
        return top_k(queries, prepared, k, length)

    # Chosen when the function is compiled.
    paths: dict[str, Callable[..., Neighbors]] = {"default": partial(by_xla, np.uint32)}
    if native.target():
        paths["cpu"] = lambda queries, codes, _: native.top_k(queries, codes, k, length)
    elif given is None:
        paths["cpu"] = partial(by_xla, np.uint8)
    tiles = given and jnp.asarray(given.tiles)
    search = partial(jax.lax.platform_dependent, **paths)
    return blocks.search_rows(search, jnp.asarray(query_codes), jnp.asarray(codes), tiles)


def codes_of(dictionary: Array | Prepared) -> Array:
    """The codes (N, W), prepared or not."""
    return dictionary.codes if isinstance(dictionary, Prepared) else dictionary


def top_k(query_codes: Array, dictionary: Prepared, k: int, num_bits: int) -> Neighbors:
    """``hamming_top_k`` of checked matrices, a block of queries at a time."""
    search = _search_few if query_codes.shape[0] < _FEW_QUERIES else _search_many
    rows, _, lanes = dictionary.tiles.shape
    most = min(max(_MINIMA // (rows * lanes), _FEW_QUERIES), _MOST_QUERIES)
    run = partial(search, dictionary=dictionary, k=k, num_bits=num_bits)
    return blocks.map_query_blocks(run, query_codes, most)


def _shape(codes: Array | np.ndarray, lane: np.dtype | type) -> tuple[int, int, int]:
    """The shape of the tiles of (N, W) codes."""
    size, width = codes.shape[0], 4 * codes.shape[1]
    unroll = _power_of_two(_UNROLLED_BYTES // width + 1, 2, 32) // 2
    lanes = _power_of_two(size // (_LEAST_ROWS * unroll), 64, _MOST_LANES)
    rows = -(-size // (unroll * lanes))
    steps = _steps(rows)
    rows = -(-rows // steps) * steps
    return rows, unroll * width // np.dtype(lane).itemsize, lanes


def _steps(rows: int) -> int:
    """S for M rows, or for as many as fill up to a multiple of it."""
    return _power_of_two(rows // 16, 2, 16)


def _tiles(codes: Array | np.ndarray, lane: np.dtype | type) -> Array:
    """The tiles of a ``Prepared``, by NumPy for arrays of NumPy."""
    if not isinstance(codes, np.ndarray):
        return _tiles_on_device(codes, lane)
    (size, words), shape = codes.shape, _shape(codes, lane)
    count = math.prod(shape) * np.dtype(lane).itemsize // (4 * words)
    padded = np.pad(codes, ((0, count - size), (0, 0)), mode="edge").view(lane)
    turned = padded.reshape(shape[2], *shape[:2]).transpose(1, 2, 0)
    return np.ascontiguousarray(turned)  # type: ignore[return-value]


@partial(jax.jit, static_argnames="lane")
def _tiles_on_device(codes: Array, lane: np.dtype | type) -> Array:
    words, shape = codes.shape[1], _shape(codes, lane)
    count = math.prod(shape) * np.dtype(lane).itemsize // (4 * words)
    # The barrier keeps XLA from padding anew within the transposition.
    padded = jax.lax.optimization_barrier(blocks.pad_rows(codes, count))
    return _as_lanes(padded, lane).reshape(shape[2], *shape[:2]).transpose(1, 2, 0)


def _as_lanes(words: Array, lane: np.dtype | type) -> Array:
    """(..., W) uint32 as (..., B) lanes, the lowest byte of a word first."""
    return jax.lax.bitcast_convert_type(words, lane).reshape(*words.shape[:-1], -1)


def _search_many(queries: Array, dictionary: Prepared, k: int, num_bits: int) -> Neighbors:
    """The K nearest of many queries (Q, W), along the last axis of what is selected from."""
    codes, tiles = dictionary
    (size, _), (rows, _, lanes), unroll = codes.shape, tiles.shape, _unroll(dictionary)
    steps = _steps(rows)
    depth, group = rows // steps, steps * unroll
    # (M / S, Q, C), for S rows of groups together.
    minima = _scan_minima(queries, tiles.reshape(depth, steps, -1, lanes), unroll, num_bits)
    first = jnp.arange(lanes, dtype=jnp.int32)[:, None] * (depth * group)
    column = _nearest(jnp.min(minima, axis=0).T, first < size, k, num_bits)[:, None]

    row = jnp.arange(depth, dtype=jnp.int32)[None, :, None]
    query = jnp.arange(queries.shape[0], dtype=jnp.int32)
    at = tuple(jnp.broadcast_arrays(row, query[None, None], column))
    candidates = minima.at[at].get(mode="promise_in_bounds")
    ids = _flat(at[2] * depth + at[0])
    place = _nearest(_flat(candidates), ids * group < size, k, num_bits)
    chosen = jnp.take_along_axis(ids, place, axis=0)[:, None]

    within = jnp.arange(group, dtype=jnp.int32)[None, :, None]
    index = _flat(_outer_sum(chosen * group, within))
    distances = _distances(queries.T[:, None], codes, index, num_bits)
    distances, place = _smallest(distances, index < size, k, num_bits)
    return Neighbors(distances.T, jnp.take_along_axis(index, place, axis=0).T)


def _scan_minima(queries: Array, tiles: Array, unroll: int, num_bits: int) -> Array:
    """(M / S, Q, C) smallest distances from every query to S rows of groups in a row.

    The scans keep XLA from computing the distances anew wherever their minima are read, and from
    fusing what stacks them into the kernel, whose loop would then not be vectorised.
    """
    first = jnp.full((queries.shape[0], tiles.shape[-1]), num_bits + 1, _kind(num_bits))
    first = blocks.varying(first, queries, tiles)

    def step(minima: Array, rows: Array) -> tuple[Array, None]:
        # Without the barrier XLA fuses the slicing of the scan into the kernel, too.
        rows = jax.lax.optimization_barrier(rows)
        return jnp.minimum(minima, _group_minima(queries, rows[None], unroll, num_bits)[0]), None

    def stack(_: None, rows: Array) -> tuple[None, Array]:
        return None, jax.lax.scan(step, first, rows)[0]

    return jax.lax.scan(stack, None, tiles)[1]


def _search_few(queries: Array, dictionary: Prepared, k: int, num_bits: int) -> Neighbors:
    """The K nearest of few queries (Q, W): one kernel, and as few others as possible."""
    codes, tiles = dictionary
    (size, _), (rows, _, lanes), unroll = codes.shape, tiles.shape, _unroll(dictionary)
    num_queries = queries.shape[0]
    minima = _group_minima(queries, tiles, unroll, num_bits)
    ids = jnp.arange(lanes * rows, dtype=jnp.int32).reshape(lanes, rows).T
    real = jnp.broadcast_to((ids * unroll < size)[:, None], minima.shape)
    minima = jnp.where(real, minima, _kind(num_bits)(num_bits + 1))
    column = _nearest_of_rows(jnp.min(minima, axis=0), k)
    query = jnp.arange(num_queries, dtype=jnp.int32)[:, None, None]
    row = jnp.arange(rows, dtype=jnp.int32)[None, None]
    at = tuple(jnp.broadcast_arrays(row, query, column[:, :, None]))
    candidates = minima.at[at].get(mode="promise_in_bounds").reshape(num_queries, -1)
    place = _nearest_of_rows(candidates, k)
    chosen = jnp.take_along_axis(column, place // rows, axis=1) * rows + place % rows

    within = jnp.arange(unroll, dtype=jnp.int32)[None, None]
    index = _outer_sum(chosen[:, :, None] * unroll, within).reshape(num_queries, -1)
    distances = _distances(queries.T[:, :, None], codes, index, num_bits)
    distances = jnp.where(index < size, distances, num_bits + 1)
    nearest, place = blocks.smallest(distances, k)
    return Neighbors(nearest, jnp.take_along_axis(index, place, axis=1))


def _group_minima(queries: Array, rows: Array, unroll: int, num_bits: int) -> Array:
    """The smallest distance from every query to every group.

    Args:
        queries: (Q, W).
        rows: (M, u * B, C), lanes of some rows of groups.
        unroll: u.
        num_bits: L.

    Returns:
        (M, Q, C) uint8 or uint16.
    """
    masks, height = _masks(num_bits, rows.dtype), rows.shape[1] // unroll
    asked = _as_lanes(queries, rows.dtype)

    def distance(first: int) -> Array:
        sums: list[Array] = []
        for lane, mask in enumerate(masks):
            pair = asked[None, :, lane, None], rows[:, None, first + lane, :]
            query, entry = jnp.broadcast_arrays(*pair)
            count = _differing(query, entry, mask)
            if lane % _LANES_OF_A_SUM:
                sums[-1] += count
            else:
                sums.append(count)
        return sum(x.astype(_kind(num_bits)) for x in sums)  # type: ignore[return-value]

    minima = distance(0)
    for code in range(1, unroll):
        minima = jnp.minimum(minima, distance(code * height))
    return minima


def _distances(queries: Array, codes: Array, index: Array, num_bits: int) -> Array:
    """Int32 distances from queries, (W, ...) words, to some of the codes (N, W)."""
    near = jnp.minimum(index, codes.shape[0] - 1)
    total = jnp.zeros(index.shape, jnp.int32)
    for word, mask in enumerate(_masks(num_bits, np.dtype(np.uint32))):
        entries = codes.at[near, word].get(mode="promise_in_bounds")
        asked = jnp.broadcast_to(queries[word], entries.shape)
        total += _differing(entries, asked, mask).astype(jnp.int32)
    return total


def _unroll(dictionary: Prepared) -> int:
    """The codes in a group, u."""
    codes, tiles = dictionary
    return tiles.shape[1] * tiles.dtype.itemsize // (4 * codes.shape[1])


def _kind(num_bits: int) -> type:
    """What holds a distance and one more."""
    return jnp.uint8 if num_bits < 255 else jnp.uint16


def _masks(num_bits: int, lane: np.dtype) -> list[np.ndarray | None]:
    """For each lane of a code that is used: None, or its bits that are, if not all of them are."""
    width = 8 * lane.itemsize
    rest = num_bits % width
    masks: list[np.ndarray | None] = [None] * (num_bits // width)
    return [*masks, np.array((1 << rest) - 1, lane)] if rest else masks


def _differing(first: Array, second: Array, mask: np.ndarray | None) -> Array:
    """How many bits differ, in the type of the words."""
    differing = first ^ second
    if mask is not None:
        differing &= jnp.full(differing.shape, mask)
    return jax.lax.population_count(differing)


def _nearest(distances: Array, valid: Array, k: int, num_bits: int) -> Array:
    """Places (k, Q) of the k smallest of (P, Q), ties to the lowest place, in increasing order."""
    count, num_queries = distances.shape
    if count <= k:
        every = jnp.arange(count, dtype=jnp.int32)[:, None]
        return jnp.broadcast_to(every, (count, num_queries))
    return jnp.sort(_smallest(distances, valid, k, num_bits)[1], axis=0)


def _smallest(distances: Array, valid: Array, k: int, num_bits: int) -> tuple[Array, Array]:
    """The k smallest valid distances (P, Q) along the first axis, and their places, (k, Q) int32.

    One after another, each as the least key beyond the last one: passes over rows of queries, which
    vector instructions go through; ``lax.top_k`` of rows takes longer up to hundreds of neighbours.
    """
    count = distances.shape[0]
    place = jnp.arange(count, dtype=jnp.uint32)[:, None]
    valid, place = (jnp.broadcast_to(x, distances.shape) for x in (valid, place))
    far = jnp.uint32(num_bits + 1)
    keys = jnp.where(valid, distances.astype(jnp.uint32), far) * np.uint32(count) + place

    def step(last: Array, _: None) -> tuple[Array, Array]:
        beyond = jnp.where(keys > last[None], keys, jnp.uint32(0xFFFFFFFF))
        least = jnp.min(beyond, axis=0)
        return least, least

    first = jnp.min(keys, axis=0)
    found = jnp.concatenate([first[None], jax.lax.scan(step, first, length=k - 1)[1]])
    return (found // count).astype(jnp.int32), (found % count).astype(jnp.int32)


def _nearest_of_rows(distances: Array, k: int) -> Array:
    """``_nearest`` of (Q, P), as (Q, k)."""
    return jnp.sort(blocks.smallest(distances, min(k, distances.shape[1]))[1], axis=1)


def _outer_sum(first: Array, second: Array) -> Array:
    """The sum of arrays of as many axes."""
    first, second = jnp.broadcast_arrays(first, second)
    return first + second


def _flat(array: Array) -> Array:
    """(A, B, Q) as (A * B, Q)."""
    return array.reshape(-1, array.shape[-1])


def _power_of_two(value: int, lowest: int, highest: int) -> int:
    """The power of two at or above ``value``, kept within two other powers of two."""
    return min(max(1 << max(value - 1, 0).bit_length(), lowest), highest)

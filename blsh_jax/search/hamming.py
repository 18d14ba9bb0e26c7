"""Exact Hamming search behind one function, whatever the platform."""

import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.search import blocks, packing, popcount
from blsh_jax.search.blocks import Neighbors

_ACCELERATOR_QUERY_BLOCK = 4096


@partial(jax.jit, static_argnames=("k", "num_bits"))
def hamming_top_k(
    query_codes: Array, dictionary_codes: Array, k: int, num_bits: int | None = None
) -> Neighbors:
    """The K dictionary codes at the smallest Hamming distance from every query.

    Memory does not grow with Q * N. May be called inside jit, vmap, scan and shard_map. Queries
    that are cut along a mesh axis of type Explicit stay so, each device searching for its own; an
    axis of type Auto leaves that to the compiler, so prefer ``jax.shard_map`` there.

    The path is chosen when the function is compiled: popcounts on CPUs, products of +-1 matrices on
    GPUs that have the kernel's instructions, popcounts in larger blocks on everything else.

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
        paths = {"cpu": partial(popcount.top_k, k=k), "default": partial(_accelerated_top_k, k=k)}
        return jax.lax.platform_dependent(*codes, **paths)

    return blocks.search_rows(search, jnp.asarray(query_codes), jnp.asarray(dictionary_codes))


def _accelerated_top_k(query_codes: Array, dictionary_codes: Array, k: int) -> Neighbors:
    if _matrix_kernel_works():
        from blsh_jax.search import product

        if query_codes.shape[1] <= product.MAX_WORDS:
            return product.top_k(query_codes, dictionary_codes, k)
    return popcount.top_k(query_codes, dictionary_codes, k, _ACCELERATOR_QUERY_BLOCK)


@cache
def _matrix_kernel_works() -> bool:
    """Whether the matrix kernel runs on this process's GPU and agrees with popcounts, tried once.

    Its warpgroup instructions exist on compute capability 9.0 only, and the compiler behind it is
    young: a version that refuses the kernel should cost speed, not the search.
    """
    if getattr(jax.devices()[0], "compute_capability", None) != "9.0":
        return False
    words = np.random.default_rng(0).integers(0, 1 << 32, (3000, 5), np.uint32)
    try:
        # Not every build of JAX can import the kernel language.
        from blsh_jax.search import product

        with jax.ensure_compile_time_eval():
            expected = jax.jit(partial(popcount.top_k, k=10))(words[:600], words)
            found = jax.jit(partial(product.top_k, k=10))(words[:600], words)
            if bool(jnp.all(found.indices == expected.indices)):
                return True
            reason = "it disagrees with popcounts"
    except Exception as error:  # whatever the compiler raises
        reason = str(error)
    warnings.warn(f"searching without the matrix kernel: {reason}", RuntimeWarning, stacklevel=2)
    return False

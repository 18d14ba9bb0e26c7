"""Exact Hamming search behind one function, whatever the platform."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes
from blsh_jax.search import blocks, popcount
from blsh_jax.search.blocks import Neighbors


@partial(jax.jit, static_argnames=("k", "num_bits"))
def hamming_top_k(
    query_codes: Array, dictionary_codes: Array, k: int, num_bits: int | None = None
) -> Neighbors:
    """The K dictionary codes at the smallest Hamming distance from every query.

    Memory does not grow with Q * N. May be called inside a jitted function.

    Args:
        query_codes: (Q, W) uint32 packed codes.
        dictionary_codes: (N, W) uint32 packed codes.
        k: K, at most N; static.
        num_bits: search with the first ``num_bits`` bits only, without repacking; static.

    Returns:
        Exact neighbours, nearest first, ties to the lowest index.

    Raises:
        ValueError: shapes disagree, k is not within 1 to N, or num_bits is longer than the codes.

    Source: [ICASSP20] Algorithm 1 with Hamming similarity (section 2.2).
    """
    blocks.check(query_codes, dictionary_codes, k, ("query_codes", "dictionary_codes"))
    query_codes, dictionary_codes = jnp.asarray(query_codes), jnp.asarray(dictionary_codes)
    if num_bits is not None:
        query_codes = codes.prefix_codes(query_codes, num_bits)
        dictionary_codes = codes.prefix_codes(dictionary_codes, num_bits)
    return popcount.top_k(query_codes, dictionary_codes, k)

"""Packing: bits to words and back.

Letters: L bits, W = ceil(L / 32) words. Bit l of a code stands in word l // 32 at position l % 32,
so a shorter code is a prefix of a longer one and needs no repacking.
"""

import math

import jax.numpy as jnp
from jax import Array

WORD_BITS = 32


def num_words(num_bits: int) -> int:
    """W, the words that hold ``num_bits`` bits."""
    return math.ceil(num_bits / WORD_BITS)


def pack_bits(bits: Array) -> Array:
    """Pack booleans into words.

    Args:
        bits: (..., L) bool.

    Returns:
        (..., W) uint32; the unused high positions of the last word are 0.
    """
    length = bits.shape[-1]
    words = num_words(length)
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, words * WORD_BITS - length)]
    grouped = jnp.pad(bits, padding).reshape(*bits.shape[:-1], words, WORD_BITS)
    shifts = jnp.broadcast_to(jnp.arange(WORD_BITS, dtype=jnp.uint32), grouped.shape)
    return jnp.sum(grouped.astype(jnp.uint32) << shifts, axis=-1, dtype=jnp.uint32)


def unpack_bits(words: Array, num_bits: int) -> Array:
    """The first ``num_bits`` bits of packed words, the inverse of ``pack_bits``.

    Args:
        words: (..., W) uint32.
        num_bits: L.

    Returns:
        (..., L) bool.
    """
    check_num_bits(num_bits, words.shape[-1] * WORD_BITS)
    index = jnp.arange(num_bits)
    chosen = words[..., index // WORD_BITS]
    shifts = jnp.broadcast_to((index % WORD_BITS).astype(jnp.uint32), chosen.shape)
    return (chosen >> shifts) & jnp.uint32(1) == 1


def prefix_codes(codes: Array, num_bits: int) -> Array:
    """The first ``num_bits`` bits of packed codes, still packed.

    Args:
        codes: (..., W) uint32.
        num_bits: bits to keep.

    Returns:
        (..., ceil(num_bits / 32)) uint32, the rest of the last word cleared.

    Source: [TASLP22], scalability: bits come in order of importance.
    """
    check_num_bits(num_bits, codes.shape[-1] * WORD_BITS)
    kept = codes[..., : num_words(num_bits)]
    unused = num_words(num_bits) * WORD_BITS - num_bits
    full = jnp.full(num_words(num_bits), 0xFFFFFFFF, jnp.uint32)
    mask = full.at[-1].set(jnp.uint32(0xFFFFFFFF >> unused))
    return kept & jnp.broadcast_to(mask, kept.shape)


def check_num_bits(num_bits: int, available: int) -> None:
    """Raise ValueError unless 1 <= num_bits <= available."""
    if not 1 <= num_bits <= available:
        raise ValueError(f"num_bits is {num_bits}: these codes have 1 to {available} bits")

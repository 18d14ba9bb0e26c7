"""Codes: from frames to bits, bits to words, and back.

Letters: N frames, D features, L bits, W = ceil(L / 32) words. Bit l of a code stands in word
l // 32 at position l % 32, so a shorter code is a prefix of a longer one and needs no repacking.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

WORD_BITS = 32


class Hasher(NamedTuple):
    """L hash functions h_l(x) = sgn(p_l . x + b_l), in order of importance.

    Attributes:
        projections: (L, D) float32.
        biases: (L,) float32.
        betas: (L,) float32, weight of each bit ([ICASSP20] eq. 6); ones for random projections.
    """

    projections: Array
    biases: Array
    betas: Array

    @property
    def num_bits(self) -> int:
        """L, the length of a code."""
        return self.projections.shape[0]

    def prefix(self, num_bits: int) -> "Hasher":
        """The hasher of the first ``num_bits`` bits.

        Raises:
            ValueError: the hasher is shorter than that.
        """
        check_num_bits(num_bits, self.num_bits)
        return Hasher(self.projections[:num_bits], self.biases[:num_bits], self.betas[:num_bits])


def random_hasher(key: Array, num_bits: int, frames: Array, centered: bool = True) -> Hasher:
    """Random projections, the locality sensitive hashing that BLSH is compared with.

    Args:
        key: PRNG key.
        num_bits: L.
        frames: (N, D) float32; only their mean is used, and only if ``centered``.
        centered: put each hyperplane through the mean of the frames instead of the origin. Spectra
            are non-negative, so hyperplanes through the origin leave many bits nearly constant.

    Returns:
        A hasher with unit betas.

    Source: [ICASSP20] section 2.2.
    """
    projections = jax.random.normal(key, (num_bits, frames.shape[-1]), frames.dtype)
    biases = -(projections @ frames.mean(0)) if centered else jnp.zeros(num_bits, frames.dtype)
    return Hasher(projections, biases, jnp.ones(num_bits, frames.dtype))


def project(frames: Array, projections: Array, biases: Array) -> Array:
    """Activations u = X P^T + b.

    Args:
        frames: (..., D) floating point.
        projections: (L, D), same dtype.
        biases: (L,), same dtype.

    Returns:
        (..., L) activations.

    Source: [ICASSP20] eq. 2.
    """
    activations = jnp.matmul(frames, projections.T, precision=jax.lax.Precision.HIGHEST)
    return activations + jnp.broadcast_to(biases, activations.shape)


def sign(activations: Array) -> Array:
    """Bipolar bits: +1 where the activation is 0 or more, -1 elsewhere; same shape and dtype."""
    one = jnp.ones((), activations.dtype)
    return jnp.where(activations >= 0, one, -one)


def encode(hasher: Hasher, frames: Array) -> Array:
    """Packed codes of frames.

    Args:
        hasher: L hash functions.
        frames: (..., D) float32.

    Returns:
        (..., W) uint32.

    Source: [ICASSP20] section 2.2.
    """
    return pack_bits(project(frames, hasher.projections, hasher.biases) >= 0)


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


def hamming_distances(codes_a: Array, codes_b: Array) -> Array:
    """All Hamming distances between two sets of codes, as one matrix.

    For searching use ``search.hamming_top_k``, which never holds this matrix.

    Args:
        codes_a: (A, W) uint32.
        codes_b: (B, W) uint32.

    Returns:
        (A, B) int32.
    """
    differing = codes_a[:, None, :] ^ codes_b[None, :, :]
    return jnp.sum(jnp.bitwise_count(differing).astype(jnp.int32), axis=-1)


def self_similarity(bits: Array, betas: Array) -> Array:
    """The self-similarity matrix of codes: sum of beta_l [a_l = b_l], divided by the sum of betas.

    Args:
        bits: (B, L) bool.
        betas: (L,) float32 weights of the bits; ones for the plain Hamming similarity.

    Returns:
        (B, B) float32 in [0, 1].

    Source: [ICASSP20] eq. 3, figure 2.
    """
    bipolar = jnp.where(bits, 1.0, -1.0).astype(betas.dtype)
    weighted = bipolar * jnp.broadcast_to(betas, bipolar.shape)
    agreement = jnp.matmul(weighted, bipolar.T, precision=jax.lax.Precision.HIGHEST)
    return (1.0 + agreement / jnp.sum(betas)) / 2.0


def check_num_bits(num_bits: int, available: int) -> None:
    """Raise ValueError unless 1 <= num_bits <= available."""
    if not 1 <= num_bits <= available:
        raise ValueError(f"num_bits is {num_bits}: these codes have 1 to {available} bits")

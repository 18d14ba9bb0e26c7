"""Masks: what the neighbours' clean speech says about each bin of a mixture.

Letters: T frames, F bins, Wf = ceil(F / 32) words of a packed mask, N dictionary frames,
K neighbours.
"""

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search import packing


def ideal_binary_mask(speech: Array, noise: Array) -> Array:
    """True where the speech is stronger than the noise.

    Args:
        speech: (..., F) complex64 spectra of the clean speech.
        noise: (..., F) complex64 spectra of the noise in the same mixture.

    Returns:
        (..., F) bool.

    Source: [ICASSP20] section 2.1.
    """
    return jnp.abs(speech) > jnp.abs(noise)


def ideal_ratio_mask(speech: Array, noise: Array) -> Array:
    """The speech's part of each bin's energy, |S|^2 / (|S|^2 + |N|^2), square-rooted.

    Args:
        speech: (..., F) complex64.
        noise: (..., F) complex64.

    Returns:
        (..., F) float32 in [0, 1]; 0 where both are silent.

    Source: Narayanan and Wang, ICASSP 2013, eq. 1 with exponent 1/2; the upper bound in [ICASSP20]
    table 1.
    """
    speech_energy = jnp.square(jnp.abs(speech))
    total = speech_energy + jnp.square(jnp.abs(noise))
    return jnp.sqrt(speech_energy / jnp.where(total > 0, total, jnp.ones_like(total)))


def apply_mask(mask: Array, mixture: Array) -> Array:
    """The masked mixture, with the mixture's phase.

    Args:
        mask: (..., F) float32 or bool.
        mixture: (..., F) complex64.

    Returns:
        (..., F) complex64.

    Source: [ICASSP20] Algorithm 1, last line.
    """
    return mixture * mask.astype(mixture.dtype)


def average_masks(packed_masks: Array, indices: Array, num_bins: int) -> Array:
    """The mean of the neighbours' binary masks.

    Args:
        packed_masks: (N, Wf) uint32, of ``packing.pack_bits``.
        indices: (Q, K) int32 rows of ``packed_masks``.
        num_bins: F.

    Returns:
        (Q, F) float32, multiples of 1 / K.

    Source: [ICASSP20] Algorithm 1, "average the ideal binary masks of the neighbours".
    """
    # The gather is done once, by whole words; fused into the counting it would be done per bin.
    words = jax.lax.optimization_barrier(packed_masks[indices])
    shifts = jnp.arange(packing.WORD_BITS, dtype=jnp.uint32)[None, None, :]
    counts = jnp.zeros((len(indices), words.shape[2], packing.WORD_BITS), jnp.uint32)
    for k in range(indices.shape[1]):
        counts += (words[:, k, :, None] >> shifts) & jnp.uint32(1)
    per_bin = counts.reshape(len(indices), -1)[:, :num_bins]
    return per_bin.astype(jnp.float32) / indices.shape[1]

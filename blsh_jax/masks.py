"""Masks: what the neighbours' clean speech says about each bin of a mixture.

Letters: T frames, F bins, Wf = ceil(F / 32) words of a packed mask, N dictionary frames, K
neighbours.
"""

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes

SHARE_FRAMES = 64  # a second: long enough to know the noise, short enough to follow it


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


def sharpen(
    mask: Array, mixture: Array, sharpness: float, past: Array | None = None
) -> tuple[Array, Array]:
    """A mask to a power that grows with the noise: neighbours that disagree let less through.

    Where noise prevails, what a mask lets through wrongly costs more than what it takes from the
    speech; where there is little, the other way round. The power is ``sharpness`` times the share
    of the noise, by the mask itself, in the energy of the last ``SHARE_FRAMES`` frames.

    Args:
        mask: (..., T, F) float32 in [0, 1].
        mixture: (..., T, F) complex64.
        sharpness: 0 leaves the mask as it is.
        past: (..., SHARE_FRAMES - 1, 2) float32, energies of the frames before the first; default:
            silence.

    Returns:
        (..., T, F) float32 in [0, 1], and the energies (..., T, 2) of the noise and of the whole.
    """
    energy = jnp.square(jnp.abs(mixture))
    parts = jnp.stack([jnp.sum((1 - mask) * energy, axis=-1), jnp.sum(energy, axis=-1)], axis=-1)
    if sharpness == 0:
        return mask, parts
    if past is None:
        past = jnp.zeros((*parts.shape[:-2], SHARE_FRAMES - 1, 2), parts.dtype)
    window = (1,) * (parts.ndim - 2) + (SHARE_FRAMES, 1)
    zero, strides = jnp.zeros((), parts.dtype), (1,) * parts.ndim
    heard = jnp.concatenate([past, parts], axis=-2)
    sums = jax.lax.reduce_window(heard, zero, jax.lax.add, window, strides, "VALID")
    noise, whole = sums[..., 0], sums[..., 1]
    share = noise / jnp.where(whole > 0, whole, jnp.ones_like(whole))
    return mask ** jnp.broadcast_to(sharpness * share[..., None], mask.shape), parts


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


def pack_masks(masks: Array) -> Array:
    """Binary masks, 32 bins to a word: (..., F) bool to (..., Wf) uint32."""
    return codes.pack_bits(masks)


def average_masks(packed_masks: Array, indices: Array, num_bins: int) -> Array:
    """The mean of the neighbours' binary masks.

    Args:
        packed_masks: (N, Wf) uint32.
        indices: (Q, K) int32 rows of ``packed_masks``.
        num_bins: F.

    Returns:
        (Q, F) float32, multiples of 1 / K.

    Source: [ICASSP20] Algorithm 1, "average the ideal binary masks of the neighbours".
    """
    # The gather is done once, by whole words; fused into the counting it would be done per bin.
    words = jax.lax.optimization_barrier(packed_masks[indices])
    shifts = jnp.arange(codes.WORD_BITS, dtype=jnp.uint32)[None, None, :]
    counts = jnp.zeros((len(indices), words.shape[2], codes.WORD_BITS), jnp.uint32)
    for k in range(indices.shape[1]):
        counts += (words[:, k, :, None] >> shifts) & jnp.uint32(1)
    per_bin = counts.reshape(len(indices), -1)[:, :num_bins]
    return per_bin.astype(jnp.float32) / indices.shape[1]

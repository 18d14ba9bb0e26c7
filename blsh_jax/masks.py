"""Masks: what the neighbours' clean speech says about each bin of a mixture.

Letters: T frames, F bins, C bands, Wf = ceil(F / 32) words of a packed mask, N dictionary frames,
K neighbours.
"""

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax import codes, spectra
from blsh_jax.config import StftConfig


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


def without_rumble(mask: Array, lowest_hz: float, stft: StftConfig) -> Array:
    """A binary mask without the bins below a frequency.

    What recordings of speech hold below any voice is rumble of the room and of the microphone. A
    mask that counts it as speech passes wind and hum wherever the noise of a dictionary frame had
    none.

    Args:
        mask: (..., F) bool.
        lowest_hz: centre frequency of the lowest bin that may hold speech, in Hz.
        stft: the transform whose bins these are.

    Returns:
        (..., F) bool.
    """
    audible = jnp.asarray(spectra.bin_hertz(stft) >= lowest_hz)
    return mask & jnp.broadcast_to(audible, mask.shape)


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


def band_shares(binary_mask: Array, mixture: Array, filters: Array) -> Array:
    """How a frame's magnitude divides among bands, and in each between speech and the rest.

    Args:
        binary_mask: (..., F) bool.
        mixture: (..., F) complex64.
        filters: (F, C) float32, weight of each bin in each band.

    Returns:
        (..., 2, C) float32: in each band, the magnitude of the bins whose mask is 1, and of the
        others; a frame's sum is 1, a silent frame's 0.
    """
    magnitude = jnp.abs(mixture)
    speech = jnp.where(binary_mask, magnitude, jnp.zeros_like(magnitude))
    shares = jnp.stack([speech, magnitude - speech], axis=-2)
    shares = jnp.matmul(shares, filters, precision=jax.lax.Precision.HIGHEST)
    total = jnp.sum(shares, axis=(-2, -1), keepdims=True)
    return shares / jnp.where(total > 0, total, jnp.ones_like(total))


def speech_parts(shares: Array) -> Array:
    """The part of each band that is speech: the mask of a band.

    Args:
        shares: (N, 2, C) floats of ``band_shares``.

    Returns:
        (N, C) in [0, 1]; 0 where the band is empty.
    """
    total = jnp.sum(shares, axis=1)
    return shares[:, 0] / jnp.where(total > 0, total, jnp.ones_like(total))


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

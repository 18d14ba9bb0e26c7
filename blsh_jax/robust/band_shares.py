"""Band shares: how a frame's magnitude divides between speech and noise, in mel bands.

What bits are learned for where noise is unknown: two frames are alike if their speech is, and their
noise is, not if they merely sound alike.

Letters: N frames, F bins, C bands.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


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


def speech_and_noise(shares: np.ndarray) -> np.ndarray:
    """Vectors whose similarity is the likeness of two frames' speech and of their noise.

    Args:
        shares: (N, 2, C) floats of ``band_shares``.

    Returns:
        (N, 2 C) float32: roots of the shares, side by side, less their mean over all frames.
    """
    vectors = np.sqrt(shares.astype(np.float32)).reshape(len(shares), -1)
    return vectors - vectors.mean(axis=0)

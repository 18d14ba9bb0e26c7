"""Codes: the signs of projections.

Letters: N frames, D features, L bits, W = ceil(L / 32) words (``search.packing``).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.search.packing import check_num_bits, pack_bits


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

    Source: [ICASSP20] eq. 1, before the sign.
    """
    activations = jnp.matmul(frames, projections.T, precision=jax.lax.Precision.HIGHEST)
    return activations + jnp.broadcast_to(biases, activations.shape)


def sign(activations: Array) -> Array:
    """Bipolar bits: +1 where the activation is 0 or more, -1 elsewhere; same shape and dtype."""
    one = jnp.ones((), activations.dtype)
    return jnp.where(activations >= 0, one, -one)


@jax.custom_jvp
def straight_through_sign(activations: Array) -> Array:
    """``sign``, whose derivative counts as that of tanh, 1 - tanh(u)^2.

    Args:
        activations: u, floating point of any shape.

    Returns:
        +1 or -1, same shape and dtype.

    Source: [ICASSP20] section 3.2.
    """
    return sign(activations)


@straight_through_sign.defjvp
def _straight_through(primals, tangents):
    (activations,), (tangent,) = primals, tangents
    return sign(activations), (1 - jnp.square(jnp.tanh(activations))) * tangent


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

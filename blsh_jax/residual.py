"""Bits from residuals: each hyperplane is the best linear answer to what the bits before leave.

    hasher, info = fit(frames, num_bits)

The l-th bit should bring the sum of h h' over the bits as near to l (2 / pi) S as it can: signs of
projections are alike by 2 / pi arcsin S on average, less than the vectors are. Of what is missing,
R = l (2 / pi) S - sum h h', a code h takes away h' R h. With h relaxed to X p that is p' X' R X p,
largest for the first eigenvector of X' R X. No pair weights, no steps, no starts: one eigenvector a
bit, of a (D, D) matrix to which a pass over the frames adds one outer product.

Boosting sets the weights of pairs by how often they were misjudged; a pair that no code can match
ends up with all the weight. A residual grows by at most 1 a bit. Short codes gain most.

Letters: N frames, D features, D' target features, L bits.
Source: W. Liu, J. Wang, R. Ji, Y. Jiang, S. Chang, "Supervised Hashing with Kernels", CVPR 2012,
sections 3.2 and 3.3 (additive residuals, spectral relaxation). There S keeps one weight, L; here it
grows with the bits, so that the first l bits of a code are the code of length l. Arcsine law of
signs: M. Goemans, D. Williamson, J. ACM 42 (6), 1995, lemma 3.2.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.codes import Hasher, sign
from blsh_jax.similarity import check_frames
from blsh_jax.spectra import unit_norm

_SIGN_SLOPE = 2 / math.pi


class ResidualInfo(NamedTuple):
    """How the bits came out.

    Attributes:
        eigenvalue: (L,) float32, p' X' R X p / N^2, what the relaxed bit takes of the residual.
        balance: (L,) float32, mean of the bit over all frames, 0 when it splits them in halves.
    """

    eigenvalue: Array
    balance: Array

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, ready for JSON."""
        return {name: np.asarray(values).tolist() for name, values in self._asdict().items()}


@functools.partial(jax.jit, static_argnames="num_bits")
def fit(frames: Array, num_bits: int, target: Array | None = None) -> tuple[Hasher, ResidualInfo]:
    """Learn L hash functions, one eigenvector after another.

    Args:
        frames: (N, D) float32 features, all in device memory.
        num_bits: L.
        target: (N, D') float32 vectors; S is the cosine of their differences from their mean.
            Default: the frames.

    Returns:
        A hasher with unit betas whose hyperplanes pass through the mean of the frames, the same for
        every order of the frames up to rounding; and how its bits came out.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_frames(frames, target)
    centered = _centered(frames)
    against = unit_norm(centered if target is None else _centered(target))
    to_features = lambda values: _times(centered.T, values) / frames.shape[0]
    wanted = to_features(against)
    wanted = _times(wanted, wanted.T)

    def next_bit(reached: Array, length: Array):
        """X' (sum h h') X with one more bit; its projection, eigenvalue and balance."""
        eigenvalue, projection = _first_eigenvector(length * _SIGN_SLOPE * wanted - reached)
        code = sign(_times(centered, projection))
        answer = to_features(code)
        return reached + jnp.outer(answer, answer), (projection, eigenvalue, jnp.mean(code))

    lengths = jnp.arange(1, num_bits + 1, dtype=frames.dtype)
    _, (projections, *info) = jax.lax.scan(next_bit, jnp.zeros_like(wanted), lengths)
    biases = -_times(projections, jnp.mean(frames, axis=0))
    hasher = Hasher(projections, biases, jnp.ones(num_bits, frames.dtype))
    return hasher, ResidualInfo(*info)


def _first_eigenvector(matrix: Array) -> tuple[Array, Array]:
    """The largest eigenvalue and its vector, whose largest entry is positive."""
    values, vectors = jnp.linalg.eigh(matrix)
    vector = vectors[:, -1]
    return values[-1], vector * sign(vector[jnp.argmax(jnp.abs(vector))])


def _centered(vectors: Array) -> Array:
    return vectors - jnp.broadcast_to(jnp.mean(vectors, axis=0), vectors.shape)


def _times(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)

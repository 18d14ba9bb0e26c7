"""Similarity: what codes should reproduce, and how far a pair of bits is from it.

A target self-similarity matrix (SSM) S holds one similarity per pair of frames of a block. The
pair metrics are spelled out here and nowhere else in the package.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax.paper.spectra import unit_norm

Target = Literal["rbf", "cosine"]
Metric = Literal["squared_error", "cross_entropy"]

_MARGIN = 1e-6  # keeps the logarithms of the cross-entropy finite at S = 0 and S = 1


def self_similarity(vectors: Array, target: Target = "rbf", sigma2: float = 0.3) -> Array:
    """The target SSM of one block.

    Args:
        vectors: (B, D) floating point, of any length; a silent frame (zero) has cosine 0 with all.
        target: ``cosine``, or ``rbf`` for the Gaussian kernel exp((cosine - 1) / sigma2), which is
            exp(-|a - b|^2 / (2 sigma2)) of vectors a and b of norm 1.
        sigma2: width of the RBF kernel; not used by ``cosine``.

    Returns:
        (B, B), same dtype, symmetric.

    Source: [ICASSP20] section 3; [TASLP22] for the kernel.
    """
    unit = unit_norm(vectors)
    cosine = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
    if target == "cosine":
        return cosine
    return jnp.exp((cosine - 1.0) / sigma2)


def pair_error(products: Array, ssm: Array, metric: Metric = "squared_error") -> Array:
    """The pair metric D(z, S), element-wise.

    Args:
        products: z = h_i h_j in {-1, +1} (or any value between, a soft agreement).
        ssm: target similarities, same shape and dtype; 0 for unlike and 1 for alike.
        metric: ``squared_error``, (t - S)^2 with t = (1 + z) / 2 on the 0/1 scale, or
            ``cross_entropy``, -t log S - (1 - t) log(1 - S).

    Returns:
        Same shape and dtype, non-negative for similarities in [0, 1].

    Source: [ICASSP20] section 3.1; [TASLP22] for the cross-entropy.
    """
    agreement = (1.0 + products) / 2.0
    if metric == "squared_error":
        return jnp.square(agreement - ssm)
    inside = jnp.clip(ssm, _MARGIN, 1.0 - _MARGIN)
    return -agreement * jnp.log(inside) - (1.0 - agreement) * jnp.log1p(-inside)


def affine(ssm: Array, metric: Metric = "squared_error") -> tuple[Array, Array]:
    """The coefficients of D(z, S) = A + z C for a product z = h_i h_j of bits, +1 or -1.

    A = (D(+1, S) + D(-1, S)) / 2 and C = (D(+1, S) - D(-1, S)) / 2, so the weighted error of a code
    is one quadratic form, sum V A + h^T (V C) h.

    Args:
        ssm: target similarities of any shape.
        metric: the pair metric.

    Returns:
        A and C, each of the shape and dtype of ``ssm``.
    """
    alike = pair_error(jnp.ones_like(ssm), ssm, metric)
    unlike = pair_error(-jnp.ones_like(ssm), ssm, metric)
    return (alike + unlike) / 2.0, (alike - unlike) / 2.0

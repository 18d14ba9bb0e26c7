"""Learner: one projection that minimises a weighted pair error, by stochastic sub-gradients.

Per block, the error of a code h = sgn(X p + b) is c + h^T M h, with the pair matrix M = V C and
the constant c = sum V A (see ``similarity``). Its derivative in h is 2 M h, and sign is given the
straight-through derivative 1 - tanh(u)^2. So a step is one product with M, whatever the metric,
and R candidates fitted side by side share it.

A candidate is a row of D + 1 numbers: a projection and, last, its bias (the weight of a constant
feature 1). Both modes take the same step; they differ in where candidates start, in the
coordinates that Adam moves in, and in when they stop.

Letters: R candidates, B frames per block, D features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from blsh_jax.codes import project, sign
from blsh_jax.config import FitConfig

STOP_WINDOW = 10  # epochs of the moving average in the stopping rule
_FAST_DECAYS = (0.9, 0.98)


class Walk(NamedTuple):
    """Where an optimisation stands.

    Attributes:
        rows: (R, D + 1) candidates, in the coordinates that the optimiser moves in.
        optimizer: state of Adam.
    """

    rows: Array
    optimizer: optax.OptState


def activations(candidates: Array, frames: Array) -> Array:
    """Activations X p + b of every candidate: (R, D + 1) and (B, D) give (B, R)."""
    return project(frames, candidates[:, :-1], candidates[:, -1])


def block_errors(codes: Array, matrix: Array) -> tuple[Array, Array]:
    """M h and h^T M h of every candidate code.

    Args:
        codes: (B, R) in {-1, +1}, float.
        matrix: (B, B) pair matrix M; its dtype decides the width of the product, sums are in the
            dtype of ``codes``.

    Returns:
        (B, R) products and (R,) quadratic forms, without the constant.
    """
    products = jnp.matmul(
        matrix,
        codes.astype(matrix.dtype),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=codes.dtype,
    )
    return products, jnp.sum(codes * products, axis=0)


def block_gradient(candidates: Array, frames: Array, matrix: Array) -> tuple[Array, Array]:
    """Error of every candidate on one block, and its straight-through gradient.

    Args:
        candidates: (R, D + 1).
        frames: (B, D).
        matrix: (B, B) pair matrix M.

    Returns:
        (R,) quadratic forms h^T M h and (R, D + 1) gradients.

    Source: [ICASSP20] eq. 5 and section 3.2; the quadratic form replaces its sum over pairs.
    """
    u = activations(candidates, frames)
    products, errors = block_errors(sign(u), matrix)
    slopes = 2.0 * products * (1.0 - jnp.square(jnp.tanh(u)))
    gradient = jnp.matmul(slopes.T, frames, precision=jax.lax.Precision.HIGHEST)
    return errors, jnp.concatenate([gradient, jnp.sum(slopes, axis=0)[:, None]], axis=1)


def start(key: Array, num_features: int, config: FitConfig) -> Walk:
    """Candidates before the first step.

    Published mode: one hyperplane, Xavier-normal for a (D + 1, 1) matrix, the bias being one more
    feature. Fast mode: R random directions in whitened coordinates, through points about half a
    standard deviation from the mean of the frames.

    Args:
        key: PRNG key.
        num_features: D.
        config: the mode.

    Source: [ICASSP20] Algorithm 2; [TASLP22] for the bias.
    """
    fast = config.mode == "fast"
    count = config.fast_candidates if fast else 1
    rows = jax.random.normal(key, (count, num_features + 1), jnp.result_type(float))
    if fast:
        rows = _unit_projections(rows.at[:, -1].multiply(0.5 * num_features**0.5))
    else:
        rows = rows * (2.0 / (num_features + 2)) ** 0.5
    return Walk(rows, _adam(num_features, config).init(rows))


def hyperplanes(walk: Walk, basis: Array | None) -> Array:
    """The candidates as hyperplanes in the space of the frames, (R, D + 1)."""
    return walk.rows if basis is None else _times(walk.rows, basis.T)


def move(walk: Walk, gradient: Array, basis: Array | None, config: FitConfig) -> Walk:
    """One optimiser step of every candidate.

    In the fast mode the step is taken in coordinates where the features are white, so that every
    direction is equally easy to reach, and rows are brought back to unit length, which gives
    activations of unit variance: the straight-through derivative neither saturates nor becomes
    constant. The step size falls to zero along a cosine, so that the last steps settle.

    Args:
        walk: where the candidates are.
        gradient: (R, D + 1) derivative of the error in the hyperplanes.
        basis: (D + 1, D + 1) from ``whitening`` in the fast mode, else None.
        config: the mode and Adam's settings.
    """
    gradient = gradient if basis is None else _times(gradient, basis)
    adam = _adam(gradient.shape[1] - 1, config)
    # optax mixes its step counter with floats, which the strict mode of promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = adam.update(gradient, walk.optimizer, walk.rows)
        rows = optax.apply_updates(walk.rows, updates)
    return Walk(rows if basis is None else _unit_projections(rows), optimizer)


def has_converged(losses: list[float], config: FitConfig) -> bool:
    """The stopping rule of the published mode.

    Args:
        losses: mean error of each epoch so far.
        config: ``min_epochs``, and B = ``block_size``.

    Returns:
        Whether ``min_epochs`` are over and the 10-epoch moving average of the loss gained less than
        1 / B^2 over the one of the epoch before.

    Source: [TASLP22], training details.
    """
    if len(losses) < config.min_epochs or len(losses) <= STOP_WINDOW:
        return False
    # The two moving averages share all but their outermost epochs.
    gain = (losses[-1 - STOP_WINDOW] - losses[-1]) / STOP_WINDOW
    return gain < 1.0 / config.block_size**2


def whitening(frames: Array, ridge: float) -> Array:
    """The basis in which features have zero mean and unit covariance.

    Args:
        frames: (N, D).
        ridge: multiple of the mean variance that is added to every variance, so that directions of
            little variance are not blown up.

    Returns:
        (D + 1, D + 1): a row q of whitened coordinates stands for the hyperplane ``basis @ q``.
    """
    mean = jnp.mean(frames, axis=0)
    centered = frames - jnp.broadcast_to(mean, frames.shape)
    covariance = jnp.matmul(centered.T, centered, precision=jax.lax.Precision.HIGHEST)
    covariance = covariance / frames.shape[0]
    variances, directions = jnp.linalg.eigh(covariance)
    floor = ridge * jnp.mean(variances) + jnp.finfo(frames.dtype).tiny
    scales = jax.lax.rsqrt(jnp.maximum(variances, 0.0) + floor)
    projections = _times(directions * jnp.broadcast_to(scales, directions.shape), directions.T)
    shifts = -jnp.matmul(projections, mean, precision=jax.lax.Precision.HIGHEST)
    basis = jnp.zeros((mean.size + 1, mean.size + 1), frames.dtype)
    return basis.at[:-1, :-1].set(projections).at[-1, :-1].set(shifts).at[-1, -1].set(1.0)


def _adam(num_features: int, config: FitConfig) -> optax.GradientTransformation:
    if config.mode == "published":
        return optax.adam(config.learning_rate, config.adam_b1, config.adam_b2)
    # A step of Adam moves every coordinate alike: this is its length for a whole row.
    rate = config.fast_learning_rate / num_features**0.5
    return optax.adam(optax.cosine_decay_schedule(rate, config.fast_steps), *_FAST_DECAYS)


def _times(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _unit_projections(rows: Array) -> Array:
    """Rows scaled so that all but the last coordinate have unit length."""
    norms = jnp.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
    norms = jnp.maximum(norms, jnp.finfo(rows.dtype).tiny)
    return rows / jnp.broadcast_to(norms, rows.shape)

"""Learner: one projection that minimises a weighted pair error, by stochastic sub-gradients.

Per block, the error of a code h = sgn(X p + b) is c + h^T M h, with the pair matrix M = V C and
the constant c = sum V A (see ``similarity``). Its derivative in h is 2 M h, and sign is given the
straight-through derivative 1 - tanh(u)^2. So a step is one product with M, whatever the metric,
and R candidates fitted side by side share it.

A candidate is a row of D + 1 numbers: a projection and, last, its bias (the weight of a constant
feature 1). Both modes take the same step; they differ in where candidates start, in the
coordinates that Adam moves in, and in when they stop.

Letters: R candidates, B frames per block, D features, S steps per epoch, G blocks per step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from blsh_jax.codes import project, sign
from blsh_jax.config import FitConfig

STOP_WINDOW = 10  # epochs of the moving average in the stopping rule

StepGradient = Callable[[Array, Array], tuple[Array, Array]]


class Fit(NamedTuple):
    """What fitting a bit gives.

    Attributes:
        candidates: (R, D + 1) hyperplanes.
        losses: losses along the way, mean over the blocks seen: (max_epochs, R) epoch by epoch in
            the published mode, NaN where it stopped before; (fast_steps, R) in the fast mode.
        steps: () int32, number of optimiser steps taken.
    """

    candidates: Array
    losses: Array
    steps: Array


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


def fit_published(
    key: Array, num_features: int, num_steps: int, step_gradient: StepGradient, config: FitConfig
) -> Fit:
    """The authors' schedule: one hyperplane, Adam, one step per group of blocks, epoch by epoch.

    The start is Xavier-normal for a (D + 1, 1) matrix, the bias being one more feature. From
    ``min_epochs`` on, training stops when the 10-epoch moving average of the loss gained less than
    1 / B^2 over the one of the epoch before.

    Args:
        key: PRNG key of the start.
        num_features: D.
        num_steps: S, steps per epoch.
        step_gradient: (candidates, step) to the (R,) mean errors, constants included, and the
            (R, D + 1) gradients of the blocks of that step.
        config: Adam's settings, the epochs and the block size.

    Source: [ICASSP20] Algorithm 2; [TASLP22] for the bias and the stopping rule.
    """
    dtype = jnp.result_type(float)
    start = jax.random.normal(key, (1, num_features + 1), dtype)
    start = start * (2.0 / (num_features + 2)) ** 0.5
    adam = optax.adam(config.learning_rate, config.adam_b1, config.adam_b2)
    threshold = 1.0 / config.block_size**2

    def step(carry, index):
        candidates, optimizer = carry
        errors, gradient = step_gradient(candidates, index)
        return _descend(adam, gradient, optimizer, candidates), errors

    def epoch(carry):
        number, fitted, losses = carry
        fitted, errors = jax.lax.scan(step, fitted, jnp.arange(num_steps))
        losses = jax.lax.dynamic_update_index_in_dim(losses, jnp.mean(errors, 0), number, 0)
        return number + 1, fitted, losses

    def goes_on(carry):
        number, _, losses = carry
        # The two moving averages share all but their outermost epochs.
        latest = losses[jnp.maximum(number - 1, 0), 0]
        dropped = losses[jnp.maximum(number - 1 - STOP_WINDOW, 0), 0]
        converged = (dropped - latest) / STOP_WINDOW < threshold
        may_stop = (number >= config.min_epochs) & (number > STOP_WINDOW)
        return (number < config.max_epochs) & ~(may_stop & converged)

    losses = jnp.full((config.max_epochs, 1), jnp.nan, dtype)
    carry = (jnp.int32(0), (start, adam.init(start)), losses)
    number, (candidates, _), losses = jax.lax.while_loop(goes_on, epoch, carry)
    return Fit(candidates, losses, number * num_steps)


def fit_fast(
    key: Array, basis: Array, num_steps: int, step_gradient: StepGradient, config: FitConfig
) -> Fit:
    """Many random hyperplanes at once, in coordinates where the features are white.

    Whitening makes every direction equally easy to reach and gives a row of unit length activations
    of unit variance, so rows are kept at unit length: the straight-through derivative then never
    saturates nor becomes constant. The step size falls to zero along a cosine, so that the last
    steps settle. Groups of blocks are taken in turn from a random first one.

    Args:
        key: PRNG key of the starts and of the first group.
        basis: (D + 1, D + 1), maps whitened coordinates to hyperplanes (see ``whitening``).
        num_steps: S, groups of blocks.
        step_gradient: as for ``fit_published``.
        config: ``fast_candidates``, ``fast_steps`` and ``fast_learning_rate``.

    Returns:
        All R candidates: the caller keeps the best by the exact error on all blocks.
    """
    start_key, first_key = jax.random.split(key)
    width = basis.shape[0]
    # The last coordinate shifts the hyperplane from the mean of the frames, in standard deviations.
    start = jax.random.normal(start_key, (config.fast_candidates, width), basis.dtype)
    scales = jnp.ones(width, basis.dtype).at[-1].set(0.5 * (width - 1) ** 0.5)
    rate = config.fast_learning_rate / (width - 1) ** 0.5
    adam = optax.adam(optax.cosine_decay_schedule(rate, config.fast_steps), 0.9, 0.98)
    first = jax.random.randint(first_key, (), 0, num_steps)

    def step(carry, index):
        rows, optimizer = carry
        errors, gradient = step_gradient(_times(rows, basis.T), (first + index) % num_steps)
        rows, optimizer = _descend(adam, _times(gradient, basis), optimizer, rows)
        return (_unit_projections(rows), optimizer), errors

    start = _unit_projections(start * jnp.broadcast_to(scales, start.shape))
    carry = (start, adam.init(start))
    (rows, _), losses = jax.lax.scan(step, carry, jnp.arange(config.fast_steps))
    return Fit(_times(rows, basis.T), losses, jnp.int32(config.fast_steps))


def whitening(frames: Array, ridge: float) -> Array:
    """The basis in which features have zero mean and unit covariance.

    Args:
        frames: (N, D).
        ridge: part of the mean variance that is added to every variance, so that directions of
            mere rounding noise are not blown up.

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


def _descend(
    optimizer: optax.GradientTransformation, gradient: Array, state: optax.OptState, rows: Array
) -> tuple[Array, optax.OptState]:
    """One optimiser step from ``rows``."""
    # optax mixes its step counter with floats, which the strict mode of promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(gradient, state, rows)
        return optax.apply_updates(rows, updates), state


def _times(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _unit_projections(rows: Array) -> Array:
    """Rows scaled so that all but the last coordinate have unit length."""
    norms = jnp.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
    norms = jnp.maximum(norms, jnp.finfo(rows.dtype).tiny)
    return rows / jnp.broadcast_to(norms, rows.shape)

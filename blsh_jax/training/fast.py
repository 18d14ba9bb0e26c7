"""The fast mode: many candidates at once, in coordinates where features are white.

Not the authors' optimiser, but their loss. R hyperplanes start from random directions and take a
fixed number of steps side by side; the best on all blocks is kept. Every direction is equally easy
to reach in white coordinates, and rows are kept at unit length there, which gives activations of
unit variance: the straight-through derivative neither saturates nor becomes constant. The pair
metric is differentiated as a line (``paper.learner``).

Letters: R candidates, N frames, D features.
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax._extras import extra
from blsh_jax.config import FitConfig
from blsh_jax.paper.boosting import Visits
from blsh_jax.paper.learner import Walk, update

if TYPE_CHECKING:
    import optax

_DECAYS = (0.9, 0.98)


class _White(NamedTuple):
    """The same candidates in white coordinates, and the way back.

    Attributes:
        walk: (R, D + 1) rows q, and Adam's state.
        basis: (D + 1, D + 1) of ``whitening``.
    """

    walk: Walk
    basis: Array


def walk(key: Array, visits: Visits, config: FitConfig, basis: Array) -> tuple[Walk, int]:
    """All steps of the candidates of one bit, in place of ``boosting.until_converged``.

    Args:
        key: PRNG key.
        visits: of the blocks, whose optimiser is ``move``.
        config: R and the schedule.
        basis: (D + 1, D + 1) from ``whitening``.

    Returns:
        The candidates, and the optimiser steps taken.
    """
    start_key, first_key = jax.random.split(key)
    # Long corpora are seen in part: each bit begins with other blocks.
    first = jax.random.randint(first_key, (), 0, visits.num_steps)
    order = (first + jnp.arange(config.fast_steps)) % visits.num_steps
    moved, _ = visits.descend(start(start_key, basis, config), order)
    return moved, config.fast_steps


def start(key: Array, basis: Array, config: FitConfig) -> Walk:
    """R random directions in white coordinates, about half a standard deviation from the mean.

    Args:
        key: PRNG key.
        basis: (D + 1, D + 1) from ``whitening``.
        config: R and the schedule.
    """
    size = len(basis)
    rows = jax.random.normal(key, (config.fast_candidates, size), basis.dtype)
    rows = _unit_projections(rows.at[:, -1].multiply(0.5 * (size - 1) ** 0.5))
    return _hyperplanes(_White(Walk(rows, _adam(size, config).init(rows)), basis))


def move(walk: Walk, gradient: Array, config: FitConfig) -> Walk:
    """One step of Adam in white coordinates, whose size falls to zero along a cosine.

    Args:
        walk: of ``start`` or the step before.
        gradient: (R, D + 1) derivative of the losses in the hyperplanes.
        config: the schedule.
    """
    white: _White = walk.optimizer
    adam = _adam(len(white.basis), config)
    moved = update(adam, white.walk, _times(gradient, white.basis))
    return _hyperplanes(white._replace(walk=moved._replace(rows=_unit_projections(moved.rows))))


def whitening(frames: Array, ridge: float) -> Array:
    """The basis in which features have zero mean and unit covariance.

    Args:
        frames: (N, D).
        ridge: multiple of the mean variance that is added to every variance, so that directions of
            little variance are not blown up.

    Returns:
        (D + 1, D + 1): a row q of white coordinates stands for the hyperplane ``basis @ q``.
    """
    mean = jnp.mean(frames, axis=0)
    centered = frames - jnp.broadcast_to(mean, frames.shape)
    covariance = _times(centered.T, centered) / frames.shape[0]
    variances, directions = jnp.linalg.eigh(covariance)
    floor = ridge * jnp.mean(variances) + jnp.finfo(frames.dtype).tiny
    scales = jax.lax.rsqrt(jnp.maximum(variances, 0.0) + floor)
    projections = _times(directions * jnp.broadcast_to(scales, directions.shape), directions.T)
    basis = jnp.zeros((mean.size + 1, mean.size + 1), frames.dtype)
    basis = basis.at[:-1, :-1].set(projections).at[-1, :-1].set(-_times(projections, mean))
    return basis.at[-1, -1].set(1.0)


def _hyperplanes(white: _White) -> Walk:
    return Walk(_times(white.walk.rows, white.basis.T), white)


def _adam(size: int, config: FitConfig) -> "optax.GradientTransformation":
    with extra("train"):
        import optax
    # A step of Adam moves every coordinate alike: this is its length for a whole row.
    rate = config.fast_learning_rate / (size - 1) ** 0.5
    return optax.adam(optax.cosine_decay_schedule(rate, config.fast_steps), *_DECAYS)


def _times(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _unit_projections(rows: Array) -> Array:
    """Rows scaled so that all but the last coordinate have unit length."""
    norms = jnp.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
    norms = jnp.maximum(norms, jnp.finfo(rows.dtype).tiny)
    return rows / jnp.broadcast_to(norms, rows.shape)

"""Learner: one projection that minimises the weighted pair loss, by stochastic sub-gradients.

    terms = pair_terms(weights, ssm)                      once for a bit
    loss = weighted_ssm_loss(code, terms)                 eq. 5 of a code h = sgn(X p + b)

The product z = h_i h_j of two bits is +1 or -1, so every pair metric D is affine in it, A + z C
(``similarity.affine``), and eq. 5 is one quadratic form, sum V A + h^T M h with M = V C. Its
gradient 2 M h is one product with M, whatever the metric, and R candidates side by side share it.

The authors differentiate D itself, a parabola in z for the squared error. It has the values of the
line at z = +1 and -1 but not its slope: C + z / 2 in place of C. That adds the row sums of V, times
h, to the gradient, which draws activations towards 0 and so keeps bits balanced.

A candidate is a row of D + 1 numbers: a projection and, last, its bias (the weight of a constant
feature 1).

Letters: R candidates, B frames per block, D features.
Source: [ICASSP20] section 3.2, eq. 5; [TASLP22] for the bias and the stopping rule.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from blsh_jax._extras import extra
from blsh_jax.config import FitConfig
from blsh_jax.paper import similarity
from blsh_jax.paper.codes import project, straight_through_sign

if TYPE_CHECKING:  # imported where bits are learned, which alone needs it
    import optax

STOP_WINDOW = 10  # epochs of the moving average in the stopping rule


class PairTerms(NamedTuple):
    """The weighted pair loss of one block as a quadratic form.

    Attributes:
        constant: () sum V A.
        matrix: (B, B) M = V C, symmetric; its dtype decides the width of products with it.
        bend: (B,) what the parabola adds to the gradient, over h; zero for a line.
    """

    constant: Array
    matrix: Array
    bend: Array


def pair_terms(
    weights: Array, ssm: Array, metric: similarity.Metric = "squared_error", parabola: bool = True
) -> PairTerms:
    """The terms of eq. 5 that no code changes.

    Args:
        weights: (B, B) pair weights V, symmetric, summing to 1.
        ssm: (B, B) target similarities S, symmetric.
        metric: the pair metric D.
        parabola: differentiate D as the authors do, not the line through its two values.

    Returns:
        The terms.
    """
    offset, slope = similarity.affine(ssm, metric)
    bend = jnp.sum(weights, axis=1)
    if metric != "squared_error" or not parabola:
        bend = jnp.zeros_like(bend)
    return PairTerms(jnp.sum(weights * offset), weights * slope, bend)


def weighted_ssm_loss(codes: Array, terms: PairTerms) -> Array:
    """Eq. 5: sum over i, j of V_ij D(h_i h_j, S_ij).

    Differentiable; with ``codes.straight_through_sign`` its gradient is the authors'.

    Args:
        codes: (B,) or (B, R) of -1 and +1, floating point; a column a candidate.
        terms: of the block.

    Returns:
        () or (R,), the loss of each candidate.

    Source: [ICASSP20] eq. 5.
    """
    bend = terms.bend if codes.ndim == 1 else terms.bend[:, None]
    # Zero for every code, but not its derivative: that of a parabola's second half.
    parabola = jnp.sum(bend * (jnp.square(codes) - 1), axis=0) / 2
    return terms.constant + _quadratic_form(codes, terms.matrix) + parabola


@jax.custom_jvp
def _quadratic_form(codes: Array, matrix: Array) -> Array:
    """h^T M h of every column."""
    return jnp.sum(codes * _product(matrix, codes), axis=0)


@functools.partial(_quadratic_form.defjvp, symbolic_zeros=True)
def _symmetric(primals, tangents):
    """2 M h, for M is symmetric: the product of the value serves the derivative."""
    (codes, matrix), (codes_dot, matrix_dot) = primals, tangents
    products = _product(matrix, codes)
    change = jnp.zeros(codes.shape[1:], codes.dtype)
    if not isinstance(codes_dot, jax.custom_derivatives.SymbolicZero):
        change += jnp.sum(2 * products * codes_dot, axis=0)
    if not isinstance(matrix_dot, jax.custom_derivatives.SymbolicZero):
        change += jnp.sum(codes * _product(matrix_dot, codes), axis=0)
    return jnp.sum(codes * products, axis=0), change


def _product(matrix: Array, codes: Array) -> Array:
    return jnp.matmul(
        matrix,
        codes.astype(matrix.dtype),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=codes.dtype,
    )


def candidate_codes(candidates: Array, frames: Array) -> Array:
    """Codes sgn(X p + b) of every candidate: (R, D + 1) and (B, D) give (B, R) of -1 and +1."""
    return straight_through_sign(project(frames, candidates[:, :-1], candidates[:, -1]))


def loss_and_gradient(candidates: Array, frames: Array, terms: PairTerms) -> tuple[Array, Array]:
    """Loss of every candidate on one block, and its straight-through gradient.

    Args:
        candidates: (R, D + 1).
        frames: (B, D).
        terms: of the block.

    Returns:
        (R,) and (R, D + 1).
    """

    def total(candidates: Array) -> tuple[Array, Array]:
        losses = weighted_ssm_loss(candidate_codes(candidates, frames), terms)
        return jnp.sum(losses), losses

    gradient, losses = jax.grad(total, has_aux=True)(candidates)
    return losses, gradient


class Walk(NamedTuple):
    """Where an optimisation stands.

    Attributes:
        rows: (R, D + 1) candidates, hyperplanes in the space of the frames.
        optimizer: state of the optimiser.
    """

    rows: Any
    optimizer: Any


def start(key: Array, num_features: int, config: FitConfig) -> Walk:
    """One hyperplane, Xavier-normal for a (D + 1, 1) matrix, the bias being one more feature.

    Args:
        key: PRNG key.
        num_features: D.
        config: Adam's settings.

    Source: [ICASSP20] Algorithm 2.
    """
    rows = jax.random.normal(key, (1, num_features + 1), jnp.result_type(float))
    rows = rows * (2.0 / (num_features + 2)) ** 0.5
    return Walk(rows, _adam(config).init(rows))


def move(walk: Walk, gradient: Array, config: FitConfig) -> Walk:
    """One step of Adam.

    Args:
        walk: where the candidates are.
        gradient: (R, D + 1) derivative of their losses.
        config: Adam's settings.
    """
    return update(_adam(config), walk, gradient)


def update(optimizer: "optax.GradientTransformation", walk: Walk, gradient: Array) -> Walk:
    """One step of an optimiser.

    Args:
        optimizer: of optax.
        walk: where the candidates, or any parameters, are.
        gradient: of their shape.
    """
    with extra("train"):
        import optax
    # optax mixes its step counter with floats, which the strict mode of promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(gradient, walk.optimizer, walk.rows)
        return Walk(optax.apply_updates(walk.rows, updates), state)


def has_converged(losses: Array, count: Array, config: FitConfig) -> Array:
    """The stopping rule.

    Args:
        losses: (E,) mean losses of the epochs, the first ``count`` of them known.
        count: () how many are over.
        config: ``min_epochs``, and B = ``block_size``.

    Returns:
        () bool, whether ``min_epochs`` are over and the 10-epoch moving average of the loss gained
        less than 1 / B^2 over the one of the epoch before.

    Source: [TASLP22], training details.
    """
    # The two moving averages share all but their outermost epochs.
    first, last = (losses[jnp.maximum(count - 1 - back, 0)] for back in (STOP_WINDOW, 0))
    gains_little = (first - last) / STOP_WINDOW < 1.0 / config.block_size**2
    return (count >= config.min_epochs) & (count > STOP_WINDOW) & gains_little


def _adam(config: FitConfig) -> "optax.GradientTransformation":
    with extra("train"):
        import optax
    return optax.adam(config.learning_rate, config.adam_b1, config.adam_b2)

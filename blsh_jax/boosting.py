"""Boosting: one bit after another, each fitted where the bits before it are wrong.

    training_set = prepare(frames, config, key)      frames permuted, cut into blocks, sharded
    state = init(training_set, config, key)          no bits yet
    state, info = step(state, training_set, config)  one more bit
    hasher, info = fit(frames, config, key)          all of it

Each bit minimises sum V D over projections (``learner``), gets its weight from its error eps,
beta = ln((1 - eps)/eps)/2, and multiplies the weight of a pair by exp(beta D). State is what the
next step needs, the bits and a key; the pair weights follow from the bits (``plans``).

Letters: N frames, D features, L bits, G blocks of B frames, S steps of k blocks, R candidates.
Source: [ICASSP20] section 3 and Algorithm 2.
"""

import dataclasses
import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from blsh_jax import learner, plans
from blsh_jax.codes import WORD_BITS, Hasher, num_words, sign
from blsh_jax.config import FitConfig
from blsh_jax.plans import Blocks, Plan, Resident

AXIS = "blocks"  # the mesh axis that the blocks of a step are sharded over
_WHITENING_FRAMES = 50_000  # enough for the covariance of some hundred features
_APPROXIMATION_BLOCKS = 8  # blocks on which the growing code is compared with its target


class TrainingSet(NamedTuple):
    """All that stays the same from bit to bit.

    Attributes:
        blocks: the frames in blocks, sharded over the mesh.
        resident: what the memory plan keeps all along.
        basis: (D + 1, D + 1) whitening basis of the fast mode; None in the published mode.
        plan: the memory plan.
        mesh: the devices.
        num_blocks: G.
        num_left_over: frames that fill no block; they are not trained on.
    """

    blocks: Blocks
    resident: Resident
    basis: Array | None
    plan: Plan
    mesh: Mesh
    num_blocks: int
    num_left_over: int


class State(NamedTuple):
    """All that the next bit depends on.

    Attributes:
        hasher: the bits so far, padded to whole words with zero betas.
        num_bits: () int32, how many are learned.
        key: PRNG key; bit l uses ``fold_in(key, l)``.
    """

    hasher: Hasher
    num_bits: Array
    key: Array


class BitInfo(NamedTuple):
    """How one bit came out; every entry is a scalar array.

    Attributes:
        objective: mean over blocks of sum V D under the fitting metric, exact, all blocks.
        constant_objective: the same of the constant code h = 1: a good bit is far below it.
        epsilon: the same under squared error ([ICASSP20] eq. 6).
        beta: ln((1 - epsilon) / epsilon) / 2.
        balance: mean of the bit over all frames, 0 when it splits them in halves.
        steps: optimiser steps taken.
    """

    objective: Array
    constant_objective: Array
    epsilon: Array
    beta: Array
    balance: Array
    steps: Array


@dataclasses.dataclass(frozen=True)
class FitInfo:
    """How training went.

    Attributes:
        objective: (L,) as in ``BitInfo``, and so the next five.
        constant_objective: (L,).
        epsilon: (L,).
        beta: (L,).
        balance: (L,).
        steps: (L,).
        seconds: (L,) wall-clock time of each bit, compilation included.
        approximation_error: (L,) mean of (S - sum beta [a = b] / sum beta)^2 of the first l bits
            ([ICASSP20] eq. 3), on up to 8 blocks.
        plain_approximation_error: (L,) the same with equal weights, what a Hamming search uses.
        num_frames: frames trained on.
        num_left_over: frames that filled no block.
        num_blocks: G.
        block_size: B.
        plan: the memory plan.
        interrupted: training was stopped by the user before the last bit.
    """

    objective: np.ndarray
    constant_objective: np.ndarray
    epsilon: np.ndarray
    beta: np.ndarray
    balance: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray
    approximation_error: np.ndarray
    plain_approximation_error: np.ndarray
    num_frames: int
    num_left_over: int
    num_blocks: int
    block_size: int
    plan: str
    interrupted: bool = False

    def to_dict(self) -> dict:
        """The same as plain lists and numbers, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }


def training_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of the first ``num_devices`` devices (default: all) for ``fit``."""
    devices = jax.devices()[:num_devices]
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices)


def prepare(
    frames: Array | np.ndarray,
    config: FitConfig,
    key: Array,
    target: Array | np.ndarray | None = None,
    *,
    plan: Plan = "float32",
    mesh: Mesh | None = None,
) -> TrainingSet:
    """Permute frames, cut them into blocks and lay them out for training.

    Args:
        frames: (N, D) float.
        config: how to fit.
        key: PRNG key of the permutation.
        target: (N, D') vectors whose similarity is the target; default: the frames.
        plan: the memory plan.
        mesh: devices with the axis ``blocks``; default: one device.

    Returns:
        The training set. With fewer than B frames they make one smaller block; otherwise the
        N mod B last frames of the permutation are left over, and counted.

    Raises:
        ValueError: the shapes, the numbers or the mesh do not fit.
    """
    mesh = training_mesh(1) if mesh is None else mesh
    _check_frames(frames, target, config, mesh)
    num_frames = frames.shape[0]
    block_size = min(config.block_size, num_frames)
    num_blocks = num_frames // block_size
    order = np.asarray(jax.random.permutation(key, num_frames))[: num_blocks * block_size]
    shape = (-(-num_blocks // config.blocks_per_step), config.blocks_per_step, block_size)
    cut = functools.partial(_cut, order=order, shape=shape)
    weights = (np.arange(shape[0] * shape[1]) < num_blocks).reshape(shape[:2])
    dtype = jnp.result_type(float)
    host = Blocks(
        cut(np.asarray(frames, dtype)),
        None if target is None else cut(np.asarray(target, dtype)),
        weights.astype(dtype),
    )
    sharding = NamedSharding(mesh, P(None, AXIS))
    blocks = jax.tree.map(lambda a: jax.device_put(a, sharding), host)
    blocks = blocks._replace(targets=blocks.frames if target is None else blocks.targets)
    basis = None
    if config.mode == "fast":
        sample = jnp.asarray(np.asarray(frames[order[:_WHITENING_FRAMES]], dtype))
        basis = _whitening(sample, config.ridge)
    resident = _keep_ssms(blocks, plan, config, mesh)
    return TrainingSet(
        blocks, resident, basis, plan, mesh, num_blocks, num_frames - num_blocks * block_size
    )


def init(training_set: TrainingSet, config: FitConfig, key: Array) -> State:
    """The state before the first bit."""
    frames = training_set.blocks.frames
    length = num_words(config.num_bits) * WORD_BITS
    zeros = jnp.zeros((length,), frames.dtype)
    return State(
        Hasher(jnp.zeros((length, frames.shape[-1]), frames.dtype), zeros, zeros),
        jnp.int32(0),
        key,
    )


def step(state: State, training_set: TrainingSet, config: FitConfig) -> tuple[State, BitInfo]:
    """Learn one more bit.

    Args:
        state: the bits so far; fewer than ``config.num_bits``.
        training_set: the frames.
        config: how to fit.

    Returns:
        The state with one more bit, and how it came out.

    Raises:
        ValueError: the error of the bit is not a number strictly between 0 and 1.
    """
    mesh = training_set.mesh
    blocks, basis = training_set.blocks, training_set.basis
    hasher, num_bits = state.hasher, state.num_bits
    kept = _keep_matrices(
        blocks, training_set.resident, hasher, num_bits, training_set.plan, config, mesh
    )
    resident = kept._replace(ssms=training_set.resident.ssms)
    key = jax.random.fold_in(state.key, num_bits)
    fitted = _learn(blocks, resident, hasher, num_bits, key, basis, config, mesh)
    evaluate = functools.partial(_evaluate, blocks, resident, hasher, num_bits, config=config)
    objectives, balances = evaluate(_with_constant(fitted.candidates), config.metric, mesh=mesh)
    best = jnp.argmin(objectives[:-1])
    chosen = fitted.candidates[best]
    if config.metric == "squared_error":
        epsilon = objectives[best]
    else:
        epsilon = evaluate(chosen[None], "squared_error", mesh=mesh)[0][0]
    _check_epsilon(float(epsilon), int(num_bits))
    beta = jnp.log((1.0 - epsilon) / epsilon) / 2.0
    grown = Hasher(
        hasher.projections.at[num_bits].set(chosen[:-1]),
        hasher.biases.at[num_bits].set(chosen[-1]),
        hasher.betas.at[num_bits].set(beta),
    )
    info = BitInfo(objectives[best], objectives[-1], epsilon, beta, balances[best], fitted.steps)
    return State(grown, num_bits + 1, state.key), info


def fit(
    frames: Array | np.ndarray,
    config: FitConfig,
    key: Array,
    target: Array | np.ndarray | None = None,
    *,
    plan: Plan = "float32",
    mesh: Mesh | None = None,
    progress: bool = False,
) -> tuple[Hasher, FitInfo]:
    """Learn L hash functions whose codes reproduce the similarity of frames.

    Args:
        frames: (N, D) float features.
        config: how to fit.
        key: PRNG key of everything random here.
        target: (N, D') vectors whose similarity is the target; default: the frames.
        plan: the memory plan.
        mesh: devices to shard over; default: one device.
        progress: show a bar.

    Returns:
        The hasher and the record of its training. An interrupt (Ctrl-C) after the first bit gives
        the bits learned until then, ``info.interrupted`` set.

    Raises:
        ValueError: bad shapes or numbers, or training broke down (see ``step``).
    """
    order_key, bits_key = jax.random.split(key)
    training_set = prepare(frames, config, order_key, target, plan=plan, mesh=mesh)
    state = init(training_set, config, bits_key)
    infos, seconds, interrupted = [], [], False
    bar = tqdm(total=config.num_bits, disable=not progress, unit="bit")
    try:
        while len(infos) < config.num_bits:
            start = time.perf_counter()
            state, info = step(state, training_set, config)
            infos.append(jax.tree.map(np.asarray, info))
            seconds.append(time.perf_counter() - start)
            bar.set_postfix(
                objective=f"{info.objective:.4f}",
                epsilon=f"{info.epsilon:.4f}",
                beta=f"{info.beta:.3f}",
                balance=f"{info.balance:+.2f}",
            )
            bar.update()
    except KeyboardInterrupt:
        interrupted = True
        if not infos:
            raise
    finally:
        bar.close()
    hasher = state.hasher.prefix(len(infos))
    return hasher, _summarize(infos, seconds, hasher, training_set, config, interrupted)


def approximation_errors(
    blocks: Blocks, hasher: Hasher, config: FitConfig
) -> tuple[np.ndarray, np.ndarray]:
    """How far the codes' similarity is from the target, after each bit.

    Args:
        blocks: frames; at most 8 blocks are used, one block at a time.
        hasher: L hash functions.
        config: the target.

    Returns:
        Two (L,) float32 arrays: the mean over pairs of (S - sum beta [a = b] / sum beta)^2, and the
        same with all betas 1.

    Source: [ICASSP20] eq. 3.
    """
    frames = blocks.frames.reshape(-1, *blocks.frames.shape[2:])
    targets = blocks.targets.reshape(-1, *blocks.targets.shape[2:])
    count = min(_APPROXIMATION_BLOCKS, int(blocks.weights.sum()))
    errors = [
        np.asarray(_block_approximation_errors(frames[g], targets[g], hasher, config))
        for g in range(count)
    ]
    weighted, plain = np.mean(errors, axis=0)
    return weighted, plain


# --- compiled pieces, each sharded over the mesh the same way ---------------------------------


def _sharded(function, mesh, in_specs, out_specs):
    # Results are made equal on all devices by ``_block_sum``, which the checker cannot follow
    # through the loops that start from constants.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


_BY_BLOCK = P(None, AXIS)


@functools.partial(jax.jit, static_argnames=("ridge",))
def _whitening(frames, ridge):
    return learner.whitening(frames, ridge)


@functools.partial(jax.jit, static_argnames=("plan", "config", "mesh"))
def _keep_ssms(blocks, plan, config, mesh):
    keep = lambda blocks: plans.keep_ssms(blocks, plan, config)
    return _sharded(keep, mesh, (_BY_BLOCK,), _BY_BLOCK)(blocks)


@functools.partial(jax.jit, static_argnames=("plan", "config", "mesh"))
def _keep_matrices(blocks, resident, hasher, num_bits, plan, config, mesh):
    keep = lambda blocks, resident, hasher, num_bits: plans.keep_matrices(
        blocks, resident, plan, hasher, num_bits, config
    )
    specs = (_BY_BLOCK, _BY_BLOCK, P(), P())
    return _sharded(keep, mesh, specs, _BY_BLOCK)(blocks, resident, hasher, num_bits)


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _learn(blocks, resident, hasher, num_bits, key, basis, config, mesh):
    def learn(blocks, resident, hasher, num_bits, key, basis):
        num_steps, _, _, num_features = blocks.frames.shape

        def step_gradient(candidates, step):
            constants, matrices = plans.step_terms(
                step, blocks, resident, hasher, num_bits, config, config.metric
            )
            errors, gradients = jax.vmap(learner.block_gradient, in_axes=(None, 0, 0))(
                candidates, blocks.frames[step], matrices
            )
            weights = blocks.weights[step]
            return (
                _block_mean(errors + constants[:, None], weights),
                _block_mean(gradients, weights),
            )

        if config.mode == "fast":
            return learner.fit_fast(key, basis, num_steps, step_gradient, config)
        return learner.fit_published(key, num_features, num_steps, step_gradient, config)

    specs = (_BY_BLOCK, _BY_BLOCK, P(), P(), P(), P())
    return _sharded(learn, mesh, specs, P())(blocks, resident, hasher, num_bits, key, basis)


@functools.partial(jax.jit, static_argnames=("metric", "config", "mesh"))
def _evaluate(blocks, resident, hasher, num_bits, candidates, metric, config, mesh):
    """Exact errors under ``metric`` and balances of candidates, each (R,), over all blocks."""

    def evaluate(blocks, resident, hasher, num_bits, candidates):
        def block(frames, constant, matrix):
            bits = sign(learner.activations(candidates, frames))
            return learner.block_errors(bits, matrix)[1] + constant, jnp.mean(bits, axis=0)

        def visit(step):
            constants, matrices = plans.step_terms(
                step, blocks, resident, hasher, num_bits, config, metric
            )
            weights = blocks.weights[step]
            means = jax.vmap(block)(blocks.frames[step], constants, matrices)
            return *(_block_sum(mean, weights) for mean in means), _block_sum(weights, weights)

        steps = jnp.arange(blocks.frames.shape[0])
        errors, balances, counts = jax.lax.map(visit, steps)
        return jnp.sum(errors, 0) / jnp.sum(counts), jnp.sum(balances, 0) / jnp.sum(counts)

    specs = (_BY_BLOCK, _BY_BLOCK, P(), P(), P())
    arguments = (blocks, resident, hasher, num_bits, candidates)
    return _sharded(evaluate, mesh, specs, (P(), P()))(*arguments)


@functools.partial(jax.jit, static_argnames=("config",))
def _block_approximation_errors(frames, target, hasher, config):
    ssm = plans.block_ssm(target, config)

    def add_bit(carry, bit):
        agreements, totals = carry
        projection, bias, beta = bit
        code = sign(learner.activations(jnp.append(projection, bias)[None], frames))[:, 0]
        agrees = (1.0 + code[:, None] * code[None, :]) / 2.0
        weights = jnp.stack([beta, jnp.ones_like(beta)])
        agreements = agreements + weights[:, None, None] * agrees[None]
        totals = totals + weights
        errors = jnp.square(ssm[None] - agreements / totals[:, None, None])
        return (agreements, totals), jnp.mean(errors, axis=(1, 2))

    start = (jnp.zeros((2, *ssm.shape), ssm.dtype), jnp.zeros(2, ssm.dtype))
    return jax.lax.scan(add_bit, start, tuple(hasher))[1].T


def _block_sum(values: Array, weights: Array) -> Array:
    """Weighted sum over the k blocks of a step, wherever they are.

    Every device puts its blocks' values in their place among zeros, so that the sum over devices
    only assembles them, and the order of summation does not depend on the number of devices.
    """
    local = weights.shape[0]
    total = local * jax.lax.axis_size(AXIS)
    scaled = values * weights.reshape(-1, *[1] * (values.ndim - 1))
    places = jnp.zeros((total, *values.shape[1:]), values.dtype)
    first = jax.lax.axis_index(AXIS) * local
    places = jax.lax.dynamic_update_slice_in_dim(places, scaled, first, 0)
    return jnp.sum(jax.lax.psum(places, AXIS), axis=0)


def _block_mean(values: Array, weights: Array) -> Array:
    return _block_sum(values, weights) / _block_sum(weights, weights)


# --- plain Python pieces ------------------------------------------------------------------------


def _cut(values: np.ndarray, order: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Rows in the given order as (S, k, B, D), filled up with zeros."""
    cut = np.zeros((shape[0] * shape[1] * shape[2], values.shape[1]), values.dtype)
    cut[: order.size] = values[order]
    return cut.reshape(*shape, values.shape[1])


def _with_constant(candidates: Array) -> Array:
    """Candidates and, last, the constant code h = 1."""
    constant = jnp.zeros_like(candidates[:1]).at[:, -1].set(1.0)
    return jnp.concatenate([candidates, constant])


def _summarize(
    infos: list[BitInfo],
    seconds: list[float],
    hasher: Hasher,
    training_set: TrainingSet,
    config: FitConfig,
    interrupted: bool,
) -> FitInfo:
    block_size = training_set.blocks.frames.shape[2]
    errors = approximation_errors(training_set.blocks, hasher, config)
    return FitInfo(
        **{name: np.stack([getattr(info, name) for info in infos]) for name in BitInfo._fields},
        seconds=np.asarray(seconds),
        approximation_error=errors[0],
        plain_approximation_error=errors[1],
        num_frames=training_set.num_blocks * block_size,
        num_left_over=training_set.num_left_over,
        num_blocks=training_set.num_blocks,
        block_size=block_size,
        plan=training_set.plan,
        interrupted=interrupted,
    )


def _check_frames(frames, target, config, mesh) -> None:
    if frames.ndim != 2 or frames.shape[0] < 2:
        raise ValueError(f"frames has shape {frames.shape}: give (N, D) with 2 frames or more")
    if target is not None and (target.ndim != 2 or target.shape[0] != frames.shape[0]):
        raise ValueError(
            f"target has shape {target.shape}: give one vector for each of the "
            f"{frames.shape[0]} frames"
        )
    for name, values in (("frames", frames), ("target", target)):
        if values is not None and not np.isfinite(np.asarray(values).sum(dtype=np.float64)):
            raise ValueError(f"{name} holds NaN or infinite values: check the features")
    if config.blocks_per_step % mesh.size:
        raise ValueError(
            f"blocks_per_step is {config.blocks_per_step}: give a multiple of the "
            f"{mesh.size} devices of the mesh"
        )


def _check_epsilon(epsilon: float, bit: int) -> None:
    if not 0.0 < epsilon < 1.0:
        raise ValueError(
            f"bit {bit} has error {epsilon}, which must lie strictly between 0 and 1: "
            "0 means that the target is reproduced exactly (train fewer bits), NaN that the "
            "frames or the target hold values out of range (a squared error needs similarities "
            "within [0, 1])"
        )

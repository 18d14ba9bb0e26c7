"""Boosting driven over blocks, devices and memory plans; ``paper.boosting`` is what is driven.

    training_set = prepare(frames, config, key)      frames permuted, cut into blocks, sharded
    state, info = step(state, training_set, config)  one more bit
    hasher, info = fit(frames, config, key)          all of it

Letters: N frames, D features, L bits, G blocks of B frames, S steps of k blocks, R candidates.
Source: [ICASSP20] section 3 and Algorithm 2.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from blsh_jax.config import FitConfig, to_dict
from blsh_jax.paper import boosting, learner, similarity
from blsh_jax.paper.boosting import BitInfo, Bits, State, Visits
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.learner import Walk
from blsh_jax.training import checkpoint as checkpoints
from blsh_jax.training import fast, plans
from blsh_jax.training.blocks import (
    HostBlocks,
    LoadedBlocks,
    block_mean,
    cut,
    sweep,
    training_mesh,
)
from blsh_jax.training.checkpoint import Checkpoint
from blsh_jax.training.fit_info import FitInfo, approximation_errors, by_field
from blsh_jax.training.log import TrainingLog
from blsh_jax.training.plans import Plan


class TrainingSet(NamedTuple):
    """All that stays the same from bit to bit.

    Attributes:
        host: the frames as given, and how they are cut into blocks.
        blocks: the blocks in device memory with what the plan keeps; ``host`` if it streams.
        basis: (D + 1, D + 1) whitening basis of the fast mode; None in the published mode.
        plan: the memory plan.
        predicted_bytes: memory that the plan should take on each device.
        mesh: the devices.
    """

    host: HostBlocks
    blocks: LoadedBlocks | HostBlocks
    basis: Array | None
    plan: Plan
    predicted_bytes: int
    mesh: Mesh


def prepare(
    frames: Array | np.ndarray,
    config: FitConfig,
    key: Array,
    target: Array | np.ndarray | None = None,
    *,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
) -> TrainingSet:
    """Permute frames, cut them into blocks and lay them out for training.

    Args:
        frames: as in ``fit``, and so are config, target, plan and mesh.
        config: how to fit.
        key: PRNG key of the permutation.
        target: vectors whose similarity is the target.
        plan: the memory plan.
        mesh: the devices.

    Raises:
        ValueError: the shapes, the numbers or the mesh do not fit.
    """
    mesh = training_mesh(1) if mesh is None else mesh
    if config.blocks_per_step % mesh.size:
        raise ValueError(
            f"blocks_per_step is {config.blocks_per_step}: give a multiple of the "
            f"{mesh.size} devices of the mesh"
        )
    host = cut(
        np.asanyarray(frames), None if target is None else np.asanyarray(target), config, key
    )
    if plan is None:
        plan, predicted = plans.choose(host, config, mesh)
    else:
        predicted = plans.predict_bytes(host, config, plan, mesh.size)
    basis = None
    if config.mode == "fast":
        rows = host.rows[host.weights > 0].ravel()[: plans.WHITENING_FRAMES]
        sample = host.frames[rows].astype(jnp.result_type(float))
        basis = _whitening(sample, config.ridge)
    blocks = plans.place(host, plan, config, mesh)
    return TrainingSet(host, blocks, basis, plan, predicted, mesh)


def step(state: State, training_set: TrainingSet, config: FitConfig) -> tuple[State, BitInfo]:
    """Learn one more bit; gives the state with it, and how it came out.

    Args:
        state: the bits so far; fewer than ``config.num_bits``.
        training_set: the frames.
        config: how to fit.

    Raises:
        ValueError: the error of the bit is not a number strictly between 0 and 1.
    """
    began = time.perf_counter()
    walk: boosting.WalkAll = boosting.until_converged
    if training_set.basis is not None:
        walk = functools.partial(fast.walk, basis=training_set.basis)
    following, info = boosting.next_bit(
        state, _visits(training_set, state.bits, config), config, walk
    )
    _check_epsilon(float(info.epsilon), int(state.bits.learned), config.block_size)
    numbers: Any = map(float, info)
    seconds = time.perf_counter() - began
    return following, BitInfo(*numbers)._replace(steps=int(info.steps), seconds=seconds)


def fit(
    frames: Array | np.ndarray,
    config: FitConfig,
    key: Array,
    target: Array | np.ndarray | None = None,
    *,
    plan: Plan | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | os.PathLike | None = None,
    log: str | os.PathLike | None = None,
    progress: bool = False,
) -> tuple[Hasher, FitInfo]:
    """Learn L hash functions whose codes reproduce the similarity of frames.

    Args:
        frames: (N, D) float features; a memory map (``np.load(path, mmap_mode="r")``) is read block
            by block.
        config: how to fit.
        key: PRNG key of everything random here.
        target: (N, D') vectors whose similarity is the target; default: the frames.
        plan: the memory plan; default: the fastest that fits the devices.
        mesh: devices to shard over, from ``training_mesh``; default: one device.
        checkpoint: ``.npz`` file that is written after every bit; if it exists, training goes on
            from it.
        log: JSON-lines file to add to.
        progress: show a bar, and the memory plan.

    Returns:
        The hasher and the record of its training. An interrupt (Ctrl-C) after the first bit gives
        the bits learned until then, with ``info.interrupted`` set.

    Raises:
        ValueError: bad shapes or numbers, training broke down (see ``step``), or the checkpoint is
            of another run.
    """
    frames, target = np.asanyarray(frames), None if target is None else np.asanyarray(target)
    saved, description = None, {}
    if checkpoint is not None:
        description = checkpoints.describe(frames, target, config, key)
        saved = checkpoints.load(checkpoint, description, frames.shape[-1])
    mesh = training_mesh(1) if mesh is None else mesh
    memory_before = plans.used_memory(mesh)
    order_key, bits_key = jax.random.split(key)
    plan = plan if saved is None else saved.plan
    training_set = prepare(frames, config, order_key, target, plan=plan, mesh=mesh)
    infos: list[BitInfo] = [] if saved is None else saved.infos
    known = None if saved is None else saved.hasher
    state = boosting.init(frames.shape[1], config, bits_key, known)
    host = training_set.host
    num_steps, per_step, size = host.rows.shape
    leads, interrupted = jax.process_index() == 0, False
    with TrainingLog(log if leads else None, progress and leads, config.num_bits, len(infos)) as to:
        to.start(
            f"{host.num_blocks} blocks of {size} frames ({host.num_left_over} frames left over), "
            f"memory plan {training_set.plan}: about {training_set.predicted_bytes / 1e9:.2f} GB "
            f"on each of {mesh.size} device(s)",
            config=to_dict(config),
            num_blocks=host.num_blocks,
            plan=training_set.plan,
            predicted_bytes=training_set.predicted_bytes,
            num_devices=mesh.size,
        )
        try:
            while len(infos) < config.num_bits:
                state, info = step(state, training_set, config)
                infos.append(info)
                if checkpoint is not None and leads:
                    content = Checkpoint(_learned(state), infos, training_set.plan)
                    checkpoints.save(checkpoint, content, description)
                visited = (info.steps + num_steps) * per_step * size  # by steps and evaluation
                to.bit(len(infos), info, visited / info.seconds)
        except KeyboardInterrupt:
            interrupted = True
            if not infos:
                raise
    hasher = _learned(state)
    peak_bytes = plans.peak_memory(mesh) - memory_before
    weighted, plain = approximation_errors(host, hasher, config)
    return hasher, FitInfo(
        **by_field(infos),
        approximation_error=weighted,
        plain_approximation_error=plain,
        num_frames=host.num_blocks * size,
        num_left_over=host.num_left_over,
        num_blocks=host.num_blocks,
        block_size=size,
        plan=training_set.plan,
        predicted_bytes=training_set.predicted_bytes,
        peak_bytes=peak_bytes,
        interrupted=interrupted,
    )


def weigh(
    hasher: Hasher,
    frames: Array | np.ndarray,
    config: FitConfig,
    key: Array,
    target: Array | np.ndarray | None = None,
) -> Hasher:
    """Betas of hyperplanes that are known: Algorithm 2 without the search for projections.

    Args:
        hasher: L hash functions, in order of importance; their betas are of no account.
        frames: (N, D) float features; some blocks of them are enough.
        config: how pairs are weighed.
        key: PRNG key of the order of the frames.
        target: (N, D') vectors whose similarity is the target; default: the frames.

    Returns:
        The hasher with betas by eq. 6, under pair weights by eq. 4.

    Raises:
        ValueError: the error of a bit is not a number strictly between 0 and 1.

    Source: [ICASSP20] eq. 4 and 6.
    """
    config = dataclasses.replace(config, num_bits=hasher.num_bits, metric="squared_error")
    order_key, bits_key = jax.random.split(key)
    training_set = prepare(frames, config, order_key, target)
    bits = boosting.init(training_set.host.frames.shape[1], config, bits_key).bits
    for candidate in np.column_stack([hasher.projections, hasher.biases]):
        judge = _visits(training_set, bits, config).judge
        epsilon = judge(jnp.asarray(candidate[None]), config.metric)[0][0]
        _check_epsilon(float(epsilon), int(bits.learned), config.block_size)
        bits = boosting.append(bits, jnp.asarray(candidate), boosting.beta(epsilon))
    return bits.hasher.prefix(hasher.num_bits)


def _visits(training_set: TrainingSet, bits: Bits, config: FitConfig) -> Visits:
    """Visits of the blocks of a training set, sweep by sweep."""
    host, mesh = training_set.host, training_set.mesh
    kept = plans.keep_terms(training_set.blocks, training_set.plan, bits, config, mesh)
    sizes = jnp.asarray(host.weights.sum(axis=1))

    def descend(walk: Walk, order: Array) -> tuple[Walk, Array]:
        walk, losses = sweep(descend_step, walk, np.asarray(order), kept, bits, config, mesh)
        return walk, jnp.average(losses, axis=0, weights=sizes[order])

    def judge(candidates: Array, metric: similarity.Metric) -> tuple[Array, Array]:
        # The terms kept for this bit are of the fitting metric.
        blocks = kept if metric == config.metric else training_set.blocks
        settings = dataclasses.replace(config, metric=metric)
        every, shared = np.arange(len(host.rows)), (bits, candidates)
        _, outputs = sweep(_judge, None, every, blocks, shared, settings, mesh)
        losses, balances = (jnp.average(o, axis=0, weights=sizes) for o in outputs)
        return losses, balances

    return Visits(descend, judge, len(host.rows), host.frames.shape[1], _loop)


def _loop(condition: Callable, body: Callable, carry: Any) -> Any:
    """``jax.lax.while_loop`` on the host, where bodies read files."""
    while condition(carry):
        carry = body(carry)
    return carry


def descend_step(
    walk: Walk, step: LoadedBlocks, bits: Bits, config: FitConfig
) -> tuple[Walk, Array]:
    """Body of a sweep: ``boosting.descend``."""
    move = fast.move if config.mode == "fast" else learner.move
    return boosting.descend(walk, plans.with_terms(step, bits, config), config, move, block_mean)


def _judge(
    carry: None, step: LoadedBlocks, shared: tuple[Bits, Array], config: FitConfig
) -> tuple[None, tuple[Array, Array]]:
    """Body of a sweep: ``boosting.judge``."""
    bits, candidates = shared
    return carry, boosting.judge(candidates, plans.with_terms(step, bits, config), block_mean)


_whitening = functools.partial(jax.jit, static_argnames=("ridge",))(fast.whitening)


def _learned(state: State) -> Hasher:
    """The bits learned so far, at least one, without padding."""
    return state.bits.hasher.prefix(int(state.bits.learned))


def _check_epsilon(epsilon: float, bit: int, block_size: int) -> None:
    # Closer to an end than the rounding of sums over a block is the end itself.
    rounding = block_size * float(np.finfo(np.float32).eps)
    if not rounding < epsilon < 1.0 - rounding:
        raise ValueError(
            f"training stopped at bit {bit}: its error epsilon is {epsilon}, and its weight "
            "ln((1 - epsilon) / epsilon) / 2 needs one strictly between 0 and 1. NaN: the frames "
            "or the target hold NaN or infinite values. 0: the bit reproduces the target exactly, "
            "so train fewer bits. Otherwise the target similarities leave [0, 1] (the cosine of "
            "features of both signs does: use the rbf target)"
        )

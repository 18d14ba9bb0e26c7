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
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from blsh_jax import checkpoint as checkpoints
from blsh_jax import learner, plans
from blsh_jax.blocks import Blocks, HostBlocks, block_mean, cut, each_block, sweep, training_mesh
from blsh_jax.checkpoint import Checkpoint
from blsh_jax.codes import WORD_BITS, Hasher, num_words, sign
from blsh_jax.config import FitConfig, to_dict
from blsh_jax.fit_info import BitInfo, FitInfo, approximation_errors, by_field
from blsh_jax.plans import Bits, Plan
from blsh_jax.similarity import check_frames
from blsh_jax.training_log import TrainingLog


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
    blocks: Blocks | HostBlocks
    basis: Array | None
    plan: Plan
    predicted_bytes: int
    mesh: Mesh


class State(NamedTuple):
    """All that the next bit depends on.

    Attributes:
        bits: learned so far.
        key: PRNG key; bit l uses ``fold_in(key, l)``.
    """

    bits: Bits
    key: Array

    @property
    def hasher(self) -> Hasher:
        """The bits learned so far, at least one, without padding."""
        return self.bits.hasher.prefix(int(self.bits.learned))


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
        frames: (N, D) float array, or a memory map (``np.load(path, mmap_mode="r")``).
        config: how to fit.
        key: PRNG key of the permutation.
        target: (N, D') vectors whose similarity is the target; default: the frames.
        plan: the memory plan; default: the fastest that fits.
        mesh: devices with the axis ``blocks``; default: one device.

    Returns:
        The training set.

    Raises:
        ValueError: the shapes, the numbers or the mesh do not fit.
    """
    mesh = training_mesh(1) if mesh is None else mesh
    check_frames(frames, target)
    _check_mesh(config, mesh)
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
    blocks = host if plan == "stream" else plans.keep_ssms(host.load(mesh), plan, config, mesh)
    return TrainingSet(host, blocks, basis, plan, predicted, mesh)


def init(training_set: TrainingSet, config: FitConfig, key: Array) -> State:
    """The state before the first bit."""
    length = num_words(config.num_bits) * WORD_BITS
    zeros = jnp.zeros(length)
    projections = jnp.zeros((length, training_set.host.frames.shape[1]))
    return State(Bits(Hasher(projections, zeros, zeros), jnp.int32(0)), key)


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
    began = time.perf_counter()
    bits, plan, mesh = state.bits, training_set.plan, training_set.mesh
    blocks = plans.keep_matrices(training_set.blocks, plan, bits, config, mesh)
    candidates, num_steps = _learn(state, blocks, training_set, config)
    objectives, balances = _evaluate(_with_constant(candidates), bits, blocks, training_set, config)
    best = int(np.argmin(objectives[:-1]))
    epsilon = objectives[best]
    if config.metric != "squared_error":
        # The matrices kept for this bit are of the fitting metric; these blocks are without them.
        squared = dataclasses.replace(config, metric="squared_error")
        only = candidates[best : best + 1]
        epsilon = _evaluate(only, bits, training_set.blocks, training_set, squared)[0][0]
    _check_epsilon(epsilon, int(bits.learned), config.block_size)
    beta = np.log((1.0 - epsilon) / epsilon) / 2.0
    info = BitInfo(
        objective=float(objectives[best]),
        constant_objective=float(objectives[-1]),
        epsilon=float(epsilon),
        beta=float(beta),
        balance=float(balances[best]),
        steps=num_steps,
        seconds=time.perf_counter() - began,
    )
    return State(_append(bits, candidates[best], beta), state.key), info


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
        frames: (N, D) float features; a memory map is read block by block.
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
        saved = checkpoints.load(checkpoint, description)
    mesh = training_mesh(1) if mesh is None else mesh
    memory_before = plans.used_memory(mesh)
    order_key, bits_key = jax.random.split(key)
    plan = plan if saved is None else saved.plan
    training_set = prepare(frames, config, order_key, target, plan=plan, mesh=mesh)
    state = init(training_set, config, bits_key)
    infos: list[BitInfo] = []
    if saved is not None:
        infos = saved.infos
        state = state._replace(bits=_restore(state.bits, saved.hasher))
    leads = jax.process_index() == 0
    interrupted = False
    with TrainingLog(log if leads else None, progress and leads, config.num_bits, len(infos)) as to:
        to.start(_announcement(training_set), **_settings(training_set, config))
        try:
            while len(infos) < config.num_bits:
                state, info = step(state, training_set, config)
                infos.append(info)
                if checkpoint is not None and leads:
                    content = Checkpoint(state.hasher, infos, training_set.plan)
                    checkpoints.save(checkpoint, content, description)
                to.bit(len(infos), info, _frames_visited(info, training_set) / info.seconds)
        except KeyboardInterrupt:
            interrupted = True
            if not infos:
                raise
    hasher = state.hasher
    used = plans.peak_memory(mesh) - memory_before
    return hasher, _summarize(infos, hasher, training_set, config, used, interrupted)


def _learn(
    state: State, blocks: Blocks | HostBlocks, training_set: TrainingSet, config: FitConfig
) -> tuple[np.ndarray, int]:
    """Candidate hyperplanes of the next bit, (R, D + 1), and the optimiser steps taken."""
    start_key, first_key = jax.random.split(jax.random.fold_in(state.key, state.bits.learned))
    num_steps = training_set.host.rows.shape[0]
    walk = learner.start(start_key, training_set.host.frames.shape[1], config)
    shared = (state.bits, training_set.basis)
    run = functools.partial(
        sweep, descend, blocks=blocks, shared=shared, config=config, mesh=training_set.mesh
    )
    if config.mode == "fast":
        # Long corpora are seen in part: each bit begins with other blocks.
        first = int(jax.random.randint(first_key, (), 0, num_steps))
        taken = config.fast_steps
        walk, _ = run(walk, (first + np.arange(taken)) % num_steps)
    else:
        losses: list[float] = []
        while len(losses) < config.max_epochs and not learner.has_converged(losses, config):
            walk, errors = run(walk, np.arange(num_steps))
            losses.append(float(_mean_over_steps(errors, training_set)[0]))
        taken = len(losses) * num_steps
    local = jax.tree.map(np.asarray, walk)
    return np.asarray(learner.hyperplanes(local, training_set.basis)), taken


def _evaluate(
    candidates: np.ndarray,
    bits: Bits,
    blocks: Blocks | HostBlocks,
    training_set: TrainingSet,
    config: FitConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact errors under ``config.metric`` and balances of candidates, each (R,), on all blocks."""
    steps = np.arange(training_set.host.rows.shape[0])
    shared = (bits, candidates)
    _, outputs = sweep(_judge, None, steps, blocks, shared, config, training_set.mesh)
    errors, balances = (_mean_over_steps(output, training_set) for output in outputs)
    return errors, balances


def descend(
    walk: learner.Walk, step: Blocks, shared: tuple[Bits, Array | None], config: FitConfig
) -> tuple[learner.Walk, Array]:
    """Body of a sweep: one optimiser step of all candidates.

    Args:
        walk: the candidates.
        step: the blocks of the step.
        shared: the bits learned so far, and the basis of the fast mode.
        config: how to fit.

    Returns:
        The moved candidates, and the (R,) errors before the move.
    """
    bits, basis = shared
    constants, matrices = plans.step_terms(step, bits, config)
    candidates = learner.hyperplanes(walk, basis)
    gradients_of = functools.partial(learner.block_gradient, candidates)
    errors, gradients = each_block(gradients_of, step.frames, matrices)
    gradient = block_mean(gradients, step.weights)
    errors = block_mean(errors + constants[:, None], step.weights)
    return learner.move(walk, gradient, basis, config), errors


def _judge(carry, step, shared, config):
    """Body of a sweep: errors and balances of candidates."""
    bits, candidates = shared
    constants, matrices = plans.step_terms(step, bits, config)

    def judge_block(frames, constant, matrix):
        code = sign(learner.activations(candidates, frames))
        return learner.block_errors(code, matrix)[1] + constant, jnp.mean(code, axis=0)

    outcomes = each_block(judge_block, step.frames, constants, matrices)
    return carry, tuple(block_mean(outcome, step.weights) for outcome in outcomes)


_whitening = functools.partial(jax.jit, static_argnames=("ridge",))(learner.whitening)


def _mean_over_steps(values: Array, training_set: TrainingSet) -> np.ndarray:
    """(S, ...) means over the blocks of each step to the mean over all blocks."""
    return np.average(np.asarray(values), axis=0, weights=training_set.host.weights.sum(axis=1))


def _with_constant(candidates: np.ndarray) -> np.ndarray:
    """Candidates and, last, the constant code h = 1."""
    constant = np.zeros_like(candidates[:1])
    constant[:, -1] = 1.0
    return np.concatenate([candidates, constant])


def _append(bits: Bits, candidate: np.ndarray, beta: float) -> Bits:
    last = (candidate[:-1], candidate[-1], beta)
    hasher = Hasher(
        *(array.at[bits.learned].set(new) for array, new in zip(bits.hasher, last, strict=True))
    )
    return Bits(hasher, bits.learned + 1)


def _restore(empty: Bits, hasher: Hasher) -> Bits:
    """The bits of a checkpoint, padded like those of a new run."""
    count = hasher.num_bits
    padded = Hasher(
        *(
            jnp.concatenate([saved, blank[count:]])
            for saved, blank in zip(hasher, empty.hasher, strict=True)
        )
    )
    return Bits(padded, jnp.int32(count))


def _frames_visited(info: BitInfo, training_set: TrainingSet) -> int:
    """Frames that the steps and the evaluation of a bit went through."""
    num_steps, per_step, size = training_set.host.rows.shape
    return (info.steps + num_steps) * per_step * size


def _announcement(training_set: TrainingSet) -> str:
    settings = training_set.host.rows.shape
    num_blocks = int(training_set.host.weights.sum())
    left_over = training_set.host.frames.shape[0] - num_blocks * settings[2]
    return (
        f"{num_blocks} blocks of {settings[2]} frames ({left_over} frames left over), memory plan "
        f"{training_set.plan}: about {training_set.predicted_bytes / 1e9:.2f} GB on each of "
        f"{training_set.mesh.size} device(s)"
    )


def _settings(training_set: TrainingSet, config: FitConfig) -> dict[str, Any]:
    return {
        "config": to_dict(config),
        "num_blocks": int(training_set.host.weights.sum()),
        "plan": training_set.plan,
        "predicted_bytes": training_set.predicted_bytes,
        "num_devices": training_set.mesh.size,
    }


def _summarize(
    infos: list[BitInfo],
    hasher: Hasher,
    training_set: TrainingSet,
    config: FitConfig,
    peak_bytes: int,
    interrupted: bool,
) -> FitInfo:
    host = training_set.host
    weighted, plain = approximation_errors(host, hasher, config)
    num_blocks, block_size = int(host.weights.sum()), host.rows.shape[2]
    return FitInfo(
        **by_field(infos),
        approximation_error=weighted,
        plain_approximation_error=plain,
        num_frames=num_blocks * block_size,
        num_left_over=host.frames.shape[0] - num_blocks * block_size,
        num_blocks=num_blocks,
        block_size=block_size,
        plan=training_set.plan,
        predicted_bytes=training_set.predicted_bytes,
        peak_bytes=peak_bytes,
        interrupted=interrupted,
    )


def _check_mesh(config: FitConfig, mesh: Mesh) -> None:
    if config.blocks_per_step % mesh.size:
        raise ValueError(
            f"blocks_per_step is {config.blocks_per_step}: give a multiple of the "
            f"{mesh.size} devices of the mesh"
        )


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

"""Blocks: training frames cut up, laid out over devices or left on disk, visited step by step.

Everything that training does to its frames is one ``sweep``: a body that takes a carry and the
blocks of one step, applied to a list of steps. Blocks in device memory are swept inside one
compiled loop; blocks on the host (an array or a memory map larger than the device) are read and
sent one step at a time to the same loop.

The blocks of a step are sharded over the mesh axis ``blocks``; carry and outputs are the same on
every device, because bodies combine blocks by ``block_mean`` only.

Letters: N frames, D features, G blocks of B frames, S steps of k blocks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from blsh_jax.config import FitConfig
from blsh_jax.paper.learner import PairTerms

AXIS = "blocks"
BY_BLOCK = P(None, AXIS)  # (S, k, ...): the blocks of a step are shared out

Body = Callable[[Any, "LoadedBlocks", Any, FitConfig], tuple[Any, Any]]


class LoadedBlocks(NamedTuple):
    """Blocks of all steps, (S, k, ...), or of one step, (k, ...); None for what is not in memory.

    Attributes:
        frames: (S, k, B, D) features.
        targets: (S, k, B, D') vectors whose similarity is the target; None for the frames.
        weights: (S, k) 1 for a block of frames, 0 for one that only fills the last step.
        ssms: (S, k, B, B) target SSMs.
        terms: (S, k, ...) of the current bit.
    """

    frames: Array
    targets: Array | None
    weights: Array
    ssms: Array | None = None
    terms: PairTerms | None = None


class HostBlocks(NamedTuple):
    """Frames that stay where they are, and the rows that make each block.

    Attributes:
        frames: (N, D) array or memory map.
        targets: (N, D') array or memory map, or None for the frames.
        rows: (S, k, B) int64 row numbers; of filling blocks, any.
        weights: (S, k) as in ``LoadedBlocks``.
    """

    frames: np.ndarray
    targets: np.ndarray | None
    rows: np.ndarray
    weights: np.ndarray

    @property
    def num_blocks(self) -> int:
        """G, without those that only fill the last step."""
        return int(self.weights.sum())

    @property
    def num_left_over(self) -> int:
        """Frames that fill no block."""
        return self.frames.shape[0] - self.num_blocks * self.rows.shape[2]

    def step(self, index: int) -> "HostBlocks":
        """The blocks of one step, S = 1."""
        return self._replace(rows=self.rows[index, None], weights=self.weights[index, None])

    def load(self, mesh: Mesh) -> LoadedBlocks:
        """The same on the devices; each process reads its own part only."""
        return LoadedBlocks(
            _load(self.frames, self.rows, mesh),
            None if self.targets is None else _load(self.targets, self.rows, mesh),
            _place(self.weights.shape, lambda part: self.weights[part], mesh),
        )


def training_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of the first ``num_devices`` devices, of all processes (default: all)."""
    devices = jax.devices()[:num_devices]
    automatic = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=automatic, devices=devices)


def cut(
    frames: np.ndarray, targets: np.ndarray | None, config: FitConfig, key: Array
) -> HostBlocks:
    """Permute frames once and cut them into blocks; nothing is copied.

    Args:
        frames: (N, D) array or memory map.
        targets: (N, D') likewise, or None.
        config: the block size and the blocks per step.
        key: PRNG key of the permutation.

    Returns:
        The blocks. With fewer than B frames they make one smaller block; otherwise the N mod B last
        frames of the permutation belong to none. Rows of a block are in rising order, for the disk.

    Raises:
        ValueError: the shapes do not fit.
    """
    if frames.ndim != 2 or frames.shape[0] < 2:
        raise ValueError(f"frames has shape {frames.shape}: give (N, D) with 2 frames or more")
    if targets is not None and (targets.ndim != 2 or len(targets) != len(frames)):
        raise ValueError(
            f"target has shape {targets.shape}: give one vector for each of the "
            f"{frames.shape[0]} frames"
        )
    num_frames = frames.shape[0]
    size = min(config.block_size, num_frames)
    num_blocks, per_step = num_frames // size, config.blocks_per_step
    num_steps = -(-num_blocks // per_step)
    order = np.asarray(jax.random.permutation(key, num_frames))[: num_blocks * size]
    rows = np.zeros((num_steps * per_step, size), np.int64)
    rows[:num_blocks] = np.sort(order.reshape(num_blocks, size), axis=1)
    weights = (np.arange(num_steps * per_step) < num_blocks).astype(jnp.result_type(float))
    shape = (num_steps, per_step)
    return HostBlocks(frames, targets, rows.reshape(*shape, size), weights.reshape(shape))


def sweep(
    body: Body,
    carry: Any,
    steps: np.ndarray,
    blocks: LoadedBlocks | HostBlocks,
    shared: Any,
    config: FitConfig,
    mesh: Mesh,
) -> tuple[Any, Any]:
    """Apply a body to the blocks of each step in turn, like ``jax.lax.scan``.

    Args:
        body: (carry, blocks of the step, shared, config) -> (carry, output), a module-level
            function; k is what one device holds of a step.
        carry: pytree of arrays.
        steps: (T,) int32 step numbers in [0, S).
        blocks: in device memory or on the host.
        shared: pytree of arrays that every step sees.
        config: passed on to the body.
        mesh: the devices.

    Returns:
        The last carry, and the outputs stacked: (T, ...).
    """
    if isinstance(blocks, LoadedBlocks):
        return _sweep(carry, np.int32(steps), blocks, shared, body, config, mesh)
    first, outputs = np.zeros(1, np.int32), []
    for index in steps:
        step = blocks.step(index).load(mesh)
        carry, output = _sweep(carry, first, step, shared, body, config, mesh)
        outputs.append(output)
    return carry, jax.tree.map(lambda *values: jnp.concatenate(values), *outputs)


def block_mean(values: Array, weights: Array) -> Array:
    """Weighted mean over the k blocks of a step, on whatever devices they are; for bodies.

    Every device puts the values of its blocks in their place among zeros, so that the sum over
    devices only brings them together, and the order of summation does not depend on the mesh.

    Args:
        values: (k, ...) of the blocks on this device.
        weights: (k,) likewise.

    Returns:
        The mean, (...), the same on every device.
    """
    scaled = values * jnp.broadcast_to(weights.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    return jnp.sum(_assemble(scaled), axis=0) / jnp.sum(_assemble(weights))


def sharded(function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable:
    """``function`` on every device's share of the blocks."""
    # Results are made equal on all devices by ``block_mean``, which the checker cannot follow
    # through the loops that start from constants.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


@functools.partial(jax.jit, static_argnames=("body", "config", "mesh"))
def _sweep(carry, steps, blocks, shared, body, config, mesh):
    def run(carry, steps, blocks, shared):
        def visit(carry, step):
            return body(carry, jax.tree.map(lambda a: a[step], blocks), shared, config)

        return jax.lax.scan(visit, carry, steps)

    return sharded(run, mesh, (P(), P(), BY_BLOCK, P()), P())(carry, steps, blocks, shared)


def _assemble(values: Array) -> Array:
    """(k on this device, ...) of every device to the whole (k, ...) on each."""
    local = values.shape[0]
    places = jnp.zeros((local * jax.lax.axis_size(AXIS), *values.shape[1:]), values.dtype)
    first = jax.lax.axis_index(AXIS) * local
    return jax.lax.psum(jax.lax.dynamic_update_slice_in_dim(places, values, first, 0), AXIS)


def _load(values: np.ndarray, rows: np.ndarray, mesh: Mesh) -> Array:
    dtype = jnp.result_type(float)
    shape = (*rows.shape, values.shape[1])
    return _place(shape, lambda part: values[rows[part[:3]]].astype(dtype), mesh)


def _place(shape: tuple[int, ...], read: Callable, mesh: Mesh) -> Array:
    return jax.make_array_from_callback(shape, NamedSharding(mesh, BY_BLOCK), read)

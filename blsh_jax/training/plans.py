"""Memory plans: where the pair matrices of a training run live.

The pair weights follow from the bits (``paper.boosting.pair_weights``), so they are never stored,
and the bits learned so far are all that a run has to remember.

    float32   keeps the target SSMs all along and the matrices of the current bit: 8 bytes a pair;
    bfloat16  keeps the matrices of the current bit, rounded: 2 bytes a pair (accelerators);
    rebuild   keeps nothing of size B x B: every step computes what it needs from the frames;
    stream    does the same and leaves the frames on the host or on disk.

Letters: G blocks in all, cut into S steps of k blocks; B frames per block, D features, L bits.
"""

import functools
import os
import sys
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from blsh_jax.config import FitConfig
from blsh_jax.paper.boosting import Bits, Blocks, block_terms
from blsh_jax.paper.similarity import self_similarity
from blsh_jax.training.blocks import BY_BLOCK, HostBlocks, LoadedBlocks, sharded

Plan = Literal["float32", "bfloat16", "rebuild", "stream"]
PLANS: tuple[Plan, ...] = ("float32", "bfloat16", "rebuild", "stream")  # fastest first
WHITENING_FRAMES = 50_000  # enough for the covariance of some hundred features
_USABLE = 0.6  # part of the free memory that a plan may be predicted to take
_LEAST_MEMORY = 8 << 30  # where a system does not tell how much it has
_WORKING_MATRICES = 8  # (B, B) temporaries of one block: cosine, SSM, agreement, A, C, V, M, spare


def with_terms(step: LoadedBlocks, bits: Bits, config: FitConfig) -> Blocks:
    """The blocks of a step with their terms: looked up where they are resident, else computed.

    Args:
        step: the k blocks of one step.
        bits: learned so far.
        config: the target, the fitting metric and the mode.
    """
    terms = step.terms
    if terms is None:
        ssms = block_ssms(step, config) if step.ssms is None else step.ssms
        make = functools.partial(
            block_terms, bits=bits, metric=config.metric, parabola=config.parabola
        )
        # One block after another: under vmap products would round differently where a device holds
        # one block of a step and where it holds all, and rounding grows: after four bits, one frame
        # in 2000 had another bit.
        terms = jax.lax.map(lambda block: make(*block), (step.frames, ssms))
    return Blocks(step.frames, step.weights, terms)


def block_ssms(step: LoadedBlocks, config: FitConfig) -> Array:
    """The (k, B, B) target SSMs of the blocks of a step."""
    vectors = step.frames if step.targets is None else step.targets
    return jax.lax.map(lambda x: self_similarity(x, config.target, config.sigma2), vectors)


def place(
    blocks: HostBlocks, plan: Plan, config: FitConfig, mesh: Mesh
) -> LoadedBlocks | HostBlocks:
    """Blocks where a plan wants them, with what it keeps from the first bit to the last."""
    if plan == "stream":
        return blocks
    loaded = blocks.load(mesh)
    if plan != "float32":
        return loaded
    return loaded._replace(ssms=_all_ssms(loaded, config, mesh))


def keep_terms(
    blocks: LoadedBlocks | HostBlocks, plan: Plan, bits: Bits, config: FitConfig, mesh: Mesh
) -> LoadedBlocks | HostBlocks:
    """Blocks with what a plan keeps for the current bit besides."""
    if isinstance(blocks, HostBlocks) or plan == "rebuild":
        return blocks
    return blocks._replace(terms=_all_terms(blocks, bits, plan, config, mesh))


def choose(
    blocks: HostBlocks, config: FitConfig, mesh: Mesh, memory: int | None = None
) -> tuple[Plan, int]:
    """The fastest plan that fits the devices, and the bytes that it is predicted to take on each.

    Args:
        blocks: the frames, cut.
        config: how to fit.
        mesh: the devices.
        memory: bytes free on each device; default: asked from the device.

    Returns:
        The plan and ``predict_bytes`` of it.
    """
    memory = free_memory(mesh) if memory is None else memory
    on_accelerator = mesh.local_devices[0].platform != "cpu"
    for plan in (plan for plan in PLANS if plan != "bfloat16" or on_accelerator):
        needed = predict_bytes(blocks, config, plan, mesh.size)
        if needed <= _USABLE * memory:
            break
    return plan, needed


def predict_bytes(blocks: HostBlocks, config: FitConfig, plan: Plan, num_devices: int = 1) -> int:
    """Peak memory of training on each device, in bytes.

    Counts the frames, what the plan keeps, and the working set of one step.

    Args:
        blocks: the frames, cut.
        config: how to fit.
        plan: the memory plan.
        num_devices: devices that the blocks of a step are shared out over.
    """
    num_steps, per_step, size = blocks.rows.shape
    local = per_step // num_devices
    width = blocks.frames.shape[1] + (0 if blocks.targets is None else blocks.targets.shape[1])
    item = jnp.dtype(jnp.result_type(float)).itemsize
    steps_held = 1 if plan == "stream" else num_steps
    held = steps_held * local * size * width * item
    pair_bytes = {"float32": 2 * item, "bfloat16": 2}.get(plan, 0)
    kept = num_steps * local * size**2 * pair_bytes
    working = local * size**2 * item * _WORKING_MATRICES
    whitening = 2 * min(size * num_steps * per_step, WHITENING_FRAMES) * blocks.frames.shape[1]
    return held + kept + working + whitening * item * (config.mode == "fast")


def free_memory(mesh: Mesh) -> int:
    """Bytes that are free on each device of a mesh (of a CPU: its share of the machine's)."""
    statistics = _device_statistics(mesh)
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    try:
        with open("/proc/meminfo") as file:
            kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in file}
        available = kibibytes["MemAvailable"] * 1024
    except (OSError, KeyError):
        physical = _LEAST_MEMORY
        if hasattr(os, "sysconf"):
            physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        available = physical // 2
    return available // len(mesh.local_devices)


def used_memory(mesh: Mesh) -> int:
    """Bytes held now: of the first device, or on a CPU of the process (0 if it cannot be told)."""
    statistics = _device_statistics(mesh)
    if "bytes_in_use" in statistics:
        return statistics["bytes_in_use"]
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def peak_memory(mesh: Mesh) -> int:
    """Most bytes ever held: of the first device, or on a CPU of the process (0 on Windows)."""
    statistics = _device_statistics(mesh)
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"]
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_statistics(mesh: Mesh) -> dict[str, int]:
    """What the first device says of its memory; a CPU says nothing."""
    return mesh.local_devices[0].memory_stats() or {}


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _all_ssms(blocks, config, mesh):
    def run(blocks):
        return jax.lax.map(lambda step: block_ssms(step, config), blocks)

    return sharded(run, mesh, (BY_BLOCK,), BY_BLOCK)(blocks)


@functools.partial(jax.jit, static_argnames=("plan", "config", "mesh"))
def _all_terms(blocks, bits, plan, config, mesh):
    dtype = jnp.bfloat16 if plan == "bfloat16" else blocks.frames.dtype

    def run(blocks, bits):
        def visit(step):
            terms = with_terms(step, bits, config).terms
            return terms._replace(matrix=terms.matrix.astype(dtype))

        return jax.lax.map(visit, blocks)

    return sharded(run, mesh, (BY_BLOCK, P()), BY_BLOCK)(blocks, bits)

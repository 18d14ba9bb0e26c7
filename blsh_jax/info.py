"""What a model weighs and costs: bytes, operations, latency, real-time factor."""

import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import config as configs
from blsh_jax import noise_tracking, spectra, streaming, voicing
from blsh_jax.config import TrainConfig
from blsh_jax.model import Model

_SECONDS = 4.0  # of noise, for the real-time factors
_BLOCK_HOPS = 64


class Cost(NamedTuple):
    """Operations to denoise one frame, by kind.

    Attributes:
        transform: floating-point operations of the transform and its inverse.
        features: floating-point operations of the features, comparisons for noise floors included.
        projection: multiplications and additions of the hash functions.
        search: XORs and popcounts of 32-bit words.
        masks: bits counted, evidence joined, and multiplied with the spectrum.
    """

    transform: int
    features: int
    projection: int
    search: int
    masks: int


def use_one_core() -> bool:
    """Keep this process, and what JAX starts in it, on one core.

    Returns:
        Whether the system can.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    core = {min(os.sched_getaffinity(0))}
    for thread in os.listdir("/proc/self/task"):  # those that JAX has already started, too
        os.sched_setaffinity(int(thread), core)
    return True


def cost(model: Model) -> Cost:
    """Operations of one frame, counted from the sizes of the model."""
    config, dictionary = model.config, model.dictionary
    bits, features = model.hasher.projections.shape
    bins, k = config.stft.num_bins, config.num_neighbors
    tracking = noise_tracking.OPERATIONS_PER_BIN * bins if config.evidence.tracks_noise else 0
    floors = config.features.levels * config.features.floor_frames
    return Cost(
        transform=2 * _real_fft_operations(config.stft.window_length),
        features=4 * bins
        + _mel_operations(config)
        + floors
        + _voicing_operations(config)
        + 3 * features,
        projection=2 * bits * features,
        search=2 * dictionary.codes.size,
        masks=k * bins + 3 * bins + tracking,
    )


def model_bytes(model: Model) -> dict[str, int]:
    """Bytes of each part that denoising needs, as held in memory."""
    hasher, dictionary = model.hasher, model.dictionary
    return {
        "projections": hasher.projections.nbytes + hasher.biases.nbytes,
        "codes": dictionary.codes.nbytes,
        "masks": dictionary.masks.nbytes,
    }


def state_bytes(model: Model) -> int:
    """Bytes that a stream carries from hop to hop, for one channel."""
    return sum(array.nbytes for array in jax.tree.leaves(streaming.init(model.config)))


def real_time_factor(model: Model, hops: int) -> float:
    """Time to denoise, divided by the length of what is denoised; below 1 is real time.

    Args:
        model: what to denoise with.
        hops: hops of a block: 1 as in live use, hundreds as for files.

    Returns:
        The median over blocks, compiled before.
    """
    stft = model.config.stft
    rng = np.random.default_rng(0)
    block = jnp.asarray(rng.standard_normal((1, hops * stft.hop_length), np.float32))
    state, times = streaming.init(model.config), []
    for _ in range(2 + max(5, round(_SECONDS * stft.sample_rate / block.size))):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(streaming.step(model, state, block))
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:])) / (block.size / stft.sample_rate)


def describe(model: Model) -> dict[str, Any]:
    """The facts about a model, measured ones included, as plain values.

    Args:
        model: any model.
    """
    config = model.config
    stft, operations = config.stft, cost(model)
    delay = streaming.latency(config)
    return {
        "bits": model.hasher.num_bits,
        "dictionary_frames": model.dictionary.num_frames,
        "neighbors": config.num_neighbors,
        "features": config.features.kind,
        "context": config.features.context,
        "levels": config.features.levels,
        "voicing": config.features.voicing,
        "lead_in_frames": config.features.lead_in_frames,
        "evidence": configs.to_dict(config.evidence),
        "sample_rate": stft.sample_rate,
        "trained_on": model.provenance,
        "bytes": model_bytes(model),
        "state_bytes": state_bytes(model),
        "operations_per_frame": operations._asdict(),
        "operations_per_second": round(sum(operations) * stft.frames_per_second),
        "latency_samples": delay,
        "latency_ms": 1000 * delay / stft.sample_rate,
        "hop_ms": 1000 * stft.hop_length / stft.sample_rate,
        "real_time_factor_live": real_time_factor(model, 1),
        "real_time_factor_files": real_time_factor(model, _BLOCK_HOPS),
    }


def text(facts: dict[str, Any], one_core: bool) -> str:
    """The facts of ``describe`` for people.

    Args:
        facts: what ``describe`` returned.
        one_core: whether times were taken on one core.
    """
    sizes, operations = facts["bytes"], facts["operations_per_frame"]
    where = "one core" if one_core else "all cores"
    reach = f", {facts['context']} frames side by side" * (facts["context"] > 1)
    levels = f" and {facts['levels']} levels above the noise floor" * (facts["levels"] > 0)
    voiced = f", voicing of {facts['voicing']} bands" * (facts["voicing"] > 0)
    lead_in = f", {facts['lead_in_frames']} frames of lead-in" * (facts["lead_in_frames"] > 0)
    lines = [
        f"model      {facts['bits']} bits, {facts['dictionary_frames']} dictionary frames, "
        f"{facts['neighbors']} neighbours",
        f"features   {facts['features']}{reach}{levels}{voiced}{lead_in}, "
        f"{facts['sample_rate']} Hz",
        *_sources(facts["trained_on"]),
        f"bytes      {sum(sizes.values()):,} ("
        + ", ".join(f"{name} {value:,}" for name, value in sizes.items())
        + f"); {facts['state_bytes']:,} of state for each stream",
        f"operations {sum(operations.values()):,} a frame ("
        + ", ".join(f"{name} {value:,}" for name, value in operations.items())
        + f"); {facts['operations_per_second'] / 1e6:,.0f} million a second",
        f"latency    {facts['latency_ms']:.0f} ms ({facts['latency_samples']} samples), and "
        f"{facts['hop_ms']:.0f} ms for a hop to fill",
        f"speed      real-time factor {facts['real_time_factor_live']:.4f} hop by hop, "
        f"{facts['real_time_factor_files']:.4f} in blocks, on {where}",
    ]
    return "\n".join(lines)


def _sources(provenance: dict[str, Any]) -> list[str]:
    """What a model was trained on, a line each for speech and noise."""
    return [
        f"{name:<10} " + ", ".join(f"{key} {value}" for key, value in provenance[name].items())
        for name in ("speech", "noise")
        if isinstance(provenance.get(name), dict)
    ]


def _real_fft_operations(length: int) -> int:
    """The usual count for a real transform, 2.5 n log2 n."""
    return round(2.5 * length * np.log2(length))


def _voicing_operations(config: TrainConfig) -> int:
    """Fine structure and its products with the comb, and comb after comb."""
    if not config.features.voicing:
        return 0
    lags, bins, reach = voicing.layout(config.stft)
    combs = 2 * (lags[1] - lags[0]) * (bins[1] - bins[0])
    return (2 * reach + 6) * config.stft.num_bins + combs


def _mel_operations(config: TrainConfig) -> int:
    """Multiplications and additions of the mel filters: spectrum, levels, three sums of voicing."""
    features = config.features
    banks = [] if features.kind == "magnitude" else [features.num_mels]
    banks += [features.levels] if features.levels else []
    banks += 3 * [features.voicing] if features.voicing else []
    return sum(2 * int(np.count_nonzero(spectra.mel_filters(n, config.stft))) for n in banks)

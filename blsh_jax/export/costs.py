"""What a model weighs and costs: bytes, operations, latency, real-time factor."""

import functools
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import config as configs
from blsh_jax.denoising import stream
from blsh_jax.denoising.recordings import BLOCK_HOPS
from blsh_jax.models.model import Model
from blsh_jax.paper import spectra
from blsh_jax.robust import speech_presence, voicing

_SECONDS = 4.0  # of noise, for the real-time factors
# Of the features of ferns besides speech presence and the comb, counted in the C code; a logarithm
# or a root counts as one, and a mean over W bins as log2(W) additions or a few more.
_BIN_FEATURE_OPERATIONS = 372
_ADDED_FEATURES = {
    "levels": "levels above the noise floor",
    "voicing": "bands of voicing",
    "pre_roll_frames": "frames of pre-roll",
}


class Cost(NamedTuple):
    """Operations to denoise one frame, by kind.

    Attributes:
        transform: floating-point operations of the transform and its inverse.
        features: floating-point operations of the features, comparisons for noise floors included.
        projection: multiplications and additions of the hash functions.
        search: XORs and popcounts of 32-bit words.
        masks: bits counted, speech presence joined, ferns and what they ask about, and the product
            with the spectrum.
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
    config, window = model.separation, model.separation.stft.window_length
    bits, features = model.hasher.projections.shape
    bins, floors = config.stft.num_bins, config.features.levels * config.features.floor_frames
    added = _mel_operations(model) + _voicing_operations(model) + floors
    per_bin = config.num_neighbors + 3
    if config.speech_presence.tracks_noise or model.ferns:
        per_bin += max(1, len(model.ferns)) * speech_presence.OPERATIONS_PER_BIN
    for stage in model.ferns:
        ferns, questions = stage.features.shape
        # A question is a comparison, a doubling and an addition; then a value is found and added.
        per_bin += _BIN_FEATURE_OPERATIONS + ferns * (3 * questions + 2)
    return Cost(
        transform=2 * round(2.5 * window * np.log2(window)),  # the usual count, 2.5 n log2 n
        features=4 * bins + 3 * features + added,
        projection=2 * bits * features,
        search=2 * model.dictionary.codes.size,
        masks=per_bin * bins,
    )


def model_bytes(model: Model) -> dict[str, int]:
    """Bytes of each part that denoising needs; ``search.prepare`` takes those of codes twice."""
    hasher, dictionary = model.hasher, model.dictionary
    learned = jax.tree.leaves(model.ferns)
    ferns = {"ferns": sum(array.nbytes for array in learned)} if learned else {}
    return {
        "projections": hasher.projections.nbytes + hasher.biases.nbytes,
        "codes": dictionary.codes.nbytes,
        "masks": dictionary.masks.nbytes,
        **ferns,
    }


def state_bytes(model: Model) -> int:
    """Bytes that a stream carries from hop to hop, for one channel."""
    return sum(array.nbytes for array in jax.tree.leaves(stream.init(model)))


def real_time_factor(model: Model, hops: int) -> float:
    """Time to denoise, divided by the length of what is denoised; below 1 is real time.

    Args:
        model: what to denoise with.
        hops: hops of a block: 1 as in live use, hundreds as for files.

    Returns:
        The median over blocks, compiled before.
    """
    stft, model = model.separation.stft, model.without_frames()
    rng = np.random.default_rng(0)
    block = jnp.asarray(rng.standard_normal((1, hops * stft.hop_length), np.float32))
    # As streams do: a hop by one program, a block by its parts.
    advance = stream.step if hops == 1 else functools.partial(stream.advance, floor=jnp.float32(0))
    state, times = stream.init(model), []
    for _ in range(2 + max(5, round(_SECONDS * stft.sample_rate / block.size))):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(advance(model, state, block))
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:])) / (block.size / stft.sample_rate)


def describe(model: Model) -> dict[str, Any]:
    """The facts about a model, measured ones included, as plain values.

    Args:
        model: any model.
    """
    config = model.separation
    stft, operations, delay = config.stft, cost(model), stream.latency(model)
    live = stream.latency(model.without_look_ahead())
    return {
        "bits": model.hasher.num_bits,
        "dictionary_frames": model.dictionary.num_frames,
        "neighbors": config.num_neighbors,
        "features": configs.to_dict(config.features),
        "speech_presence": configs.to_dict(config.speech_presence),
        "ferns": [len(stage.features) for stage in model.ferns],
        "fern_bits": model.config.ferns.fern_bits,
        "sample_rate": stft.sample_rate,
        "trained_on": model.provenance,
        "bytes": model_bytes(model),
        "state_bytes": state_bytes(model),
        "operations_per_frame": operations._asdict(),
        "operations_per_second": round(sum(operations) * stft.frames_per_second),
        "latency_samples": delay,
        "latency_ms": 1000 * delay / stft.sample_rate,
        "live_latency_samples": live,
        "live_latency_ms": 1000 * live / stft.sample_rate,
        "hop_ms": 1000 * stft.hop_length / stft.sample_rate,
        "real_time_factor_live": real_time_factor(model, 1),
        "real_time_factor_files": real_time_factor(model, BLOCK_HOPS),
    }


def text(facts: dict[str, Any], one_core: bool) -> str:
    """The facts of ``describe`` for people.

    Args:
        facts: what ``describe`` returned.
        one_core: whether times were taken on one core.
    """
    sizes, operations = facts["bytes"], facts["operations_per_frame"]
    where = "one core" if one_core else "all cores"
    features = facts["features"]
    shown = [
        features["kind"],
        *[f"{features['context']} frames side by side"] * (features["context"] > 1),
        *(
            f"{features[name]} {words}"
            for name, words in _ADDED_FEATURES.items()
            if features[name] > 0
        ),
        f"{facts['sample_rate']} Hz",
    ]
    lines = [
        f"model      {facts['bits']} bits, {facts['dictionary_frames']} dictionary frames, "
        f"{facts['neighbors']} neighbours",
        f"features   {', '.join(shown)}",
        *_ferns(facts),
        *_sources(facts["trained_on"]),
        f"bytes      {sum(sizes.values()):,} ("
        + ", ".join(f"{name} {value:,}" for name, value in sizes.items())
        + f"); {facts['state_bytes']:,} of state for each stream",
        f"operations {sum(operations.values()):,} a frame ("
        + ", ".join(f"{name} {value:,}" for name, value in operations.items())
        + f"); {facts['operations_per_second'] / 1e6:,.0f} million a second",
        f"latency    {facts['live_latency_ms']:.0f} ms ({facts['live_latency_samples']} samples) "
        f"live, and {facts['hop_ms']:.0f} ms for a hop to fill; files and arrays look ahead: "
        f"{facts['latency_ms']:.0f} ms",
        f"speed      real-time factor {facts['real_time_factor_live']:.4f} hop by hop, "
        f"{facts['real_time_factor_files']:.4f} in blocks, on {where}",
    ]
    return "\n".join(lines)


def _ferns(facts: dict[str, Any]) -> list[str]:
    """A line on the stages of ferns, if there are any."""
    stages = [f"{count} ferns of {facts['fern_bits']} bits" for count in facts["ferns"]]
    if not stages:
        return []
    return [f"mask       {'; then '.join(stages)}" + ", which look ahead" * (len(stages) > 1)]


def _sources(provenance: dict[str, Any]) -> list[str]:
    """What a model was trained on, a line each for speech and noise."""
    return [
        f"{name:<10} " + ", ".join(f"{key} {value}" for key, value in provenance[name].items())
        for name in ("speech", "noise")
        if isinstance(provenance.get(name), dict)
    ]


def _voicing_operations(model: Model) -> int:
    """Fine structure and its products with the comb, and comb after comb."""
    config = model.separation
    if not config.features.voicing and not model.ferns:
        return 0
    lags, bins, reach = voicing.layout(config.stft)
    combs = 2 * (lags[1] - lags[0]) * (bins[1] - bins[0])
    return (2 * reach + 6) * config.stft.num_bins + combs


def _mel_operations(model: Model) -> int:
    """Multiplications and additions of the mel filters: spectrum, levels, three sums of voicing."""
    stft, features = model.separation.stft, model.separation.features
    banks = [] if features.kind == "magnitude" else [features.num_mels]
    banks += [features.levels] if features.levels else []
    banks += 3 * [features.voicing] if features.voicing else []
    return sum(2 * int(np.count_nonzero(spectra.mel_filters(n, stft))) for n in banks)

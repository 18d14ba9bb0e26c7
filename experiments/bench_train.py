"""Time training against the published step in PyTorch, compare both modes, and train at scale.

    python -m experiments.bench_train --output bench.json [--speech DIR --noise DIR]

Needs PyTorch (``pip install -e '.[bench]'``). Three parts, in one run:

step    one optimiser step at B = 1000, against the published step written in PyTorch, and the bytes
        of the pair matrix read per second against a measured copy;
curves  the published and the fast mode, bit by bit from the same pair weights and each on its own,
        with a picture beside the record;
scale   a whole code on many frames, under each memory plan that is asked for.

Without --speech and --noise, the frames are of the synthetic corpus. On two idle cores, expect four
minutes for 150 bits on 225,000 frames, as long for curves of 150 bits on 20,000 frames, and a step
per candidate hundreds of times faster than in PyTorch.
"""

import dataclasses
import os
import statistics
import time
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from blsh_jax import training
from blsh_jax._extras import extra
from blsh_jax.commands import launch
from blsh_jax.config import FitConfig, TrainConfig, to_dict
from blsh_jax.evaluation import records
from blsh_jax.paper import boosting, learner, spectra
from blsh_jax.robust.augmentation import training_mixtures
from blsh_jax.training import driver, fast, plans
from blsh_jax.training.blocks import LoadedBlocks, sweep
from blsh_jax.training.fit_info import approximation_errors, by_field
from experiments import pictures, timing

_STEP_BLOCKS = 16


def _define_flags() -> None:
    launch.define_output(
        "Record to write (.json); the picture of the curves goes beside it (.png)."
    )
    launch.define_corpora(required=False)
    launch.define_choices("parts", ["step", "curves", "scale"], "Parts to run.")
    flags.DEFINE_integer("curve_frames", 20_000, "Frames of the curves.")
    flags.DEFINE_integer("curve_bits", 25, "Bits of the curves.")
    flags.DEFINE_list("scale_frames", ["225000"], "Numbers of frames of the scale part.")
    flags.DEFINE_list("scale_plans", ["auto"], "Memory plans of the scale part.")
    flags.DEFINE_integer("num_bits", 150, "Bits of the scale part.")
    flags.DEFINE_integer("blocks_per_step", 1, "Blocks per optimiser step of the fast mode.")
    flags.DEFINE_integer("repeats", 20, "Repetitions; times are medians.")
    flags.DEFINE_integer("seed", 0, "Seed of everything random.")


def main() -> None:
    """Flags, library, record, picture."""
    values = flags.FLAGS
    config = FitConfig(num_bits=values.num_bits, blocks_per_step=values.blocks_per_step)
    torch = _published().torch.__version__
    frames, source = _frames(values.seed)
    rows: list[dict[str, Any]] = []
    more: dict[str, Any] = {"torch": torch, "load_average": os.getloadavg()[0]}
    settings = {name: values[name].value for name in ("curve_frames", "repeats", "seed")}
    settings |= {"fit": to_dict(config), "frames": source}

    def keep() -> None:  # what is measured, before hours more
        records.write_json(values.output, records.record(rows, settings, **more))

    if "step" in values.parts:
        rows += bench_step(frames, config, values.repeats)
    if "curves" in values.parts:
        enough = enlarge(frames, values.curve_frames, values.seed)
        curve_config = dataclasses.replace(config, num_bits=values.curve_bits)
        more["curves"] = curves(enough, curve_config, values.seed)
        rows += curve_rows(more["curves"], rows[0]["reference"] / 1e3 if rows else None)
        keep()
    if "scale" in values.parts:
        for number in map(int, values.scale_frames):
            enough = enlarge(frames, number, values.seed)
            for plan in values.scale_plans:
                rows.append(scale_row(enough, config, plan, values.seed))
                keep()
    record = launch.write(rows, timing.COLUMNS, settings, **more)
    if "curves" in more:
        drawn = pictures.training_curves(record)
        pictures.save(drawn, record, Path(values.output).with_suffix(".png"))


def _published() -> types.ModuleType:
    """The published step in PyTorch, which only this launch needs."""
    with extra("bench"):
        from experiments import published_torch
    return published_torch


def bench_step(frames: np.ndarray, config: FitConfig, repeats: int) -> list[dict[str, Any]]:
    """Rows: one step of each mode against PyTorch, and against the memory bandwidth."""
    count = _STEP_BLOCKS * config.block_size
    frames = enlarge(frames, count, 0)
    published = dataclasses.replace(config, mode="published", blocks_per_step=1)
    published_set = driver.prepare(frames, published, jax.random.key(0), plan="float32")
    fast = dataclasses.replace(config, blocks_per_step=1)
    fast_set = driver.prepare(frames, fast, jax.random.key(0), plan="float32")
    _, losses, ours_published, copy = _time_steps(published_set, published, repeats)
    *_, ours_fast, _ = _time_steps(fast_set, fast, repeats)
    blocks = spectra.unit_norm(frames[published_set.host.rows[:, 0]])
    start = np.asarray(learner.start(jax.random.key(7), frames.shape[1], published).rows[0])
    reference_losses, seconds = _published().run(
        start, np.asarray(blocks), config.sigma2, published, repeats
    )
    # Losses along the way; hyperplanes drift apart, see docs/training.md on the two gradients.
    agrees = bool(np.allclose(losses[:, 0], reference_losses, atol=1e-4))
    size = f"B={config.block_size} D={frames.shape[1]}"
    many = f"{size} R={config.fast_candidates}"
    matrix = 4.0 * config.block_size**2 / 1e9
    ms = 1e3
    single = ours_fast / config.fast_candidates
    return [
        timing.row("published step", size, ours_published * ms, seconds * ms, "ms", agrees),
        timing.row("fast step, all candidates", many, ours_fast * ms, seconds * ms, "ms", agrees),
        timing.row("fast step, per candidate", many, single * ms, seconds * ms, "ms", agrees),
        timing.row("pair matrix read, published step", size, matrix / ours_published, copy, "GB/s"),
        timing.row("pair matrix read, fast step", many, matrix / ours_fast, copy, "GB/s"),
    ]


def _time_steps(training_set, config: FitConfig, repeats: int):
    """One pass from a known start, and the medians of a step and of copying bytes."""
    mesh, num_features = training_set.mesh, training_set.host.frames.shape[1]
    bits = boosting.init(num_features, config, jax.random.key(1)).bits
    blocks = plans.keep_terms(training_set.blocks, "float32", bits, config, mesh)
    assert isinstance(blocks, LoadedBlocks) and blocks.terms is not None
    matrices, key = blocks.terms.matrix, jax.random.key(7)
    if config.mode == "fast":
        start = fast.start(key, training_set.basis, config)
    else:
        start = learner.start(key, num_features, config)
    order = np.arange(len(training_set.host.rows))
    run = lambda: sweep(driver.descend_step, start, order, blocks, bits, config, mesh)
    copied = jax.jit(lambda a: a + 1.0)
    (timed,) = timing.take_turns(repeats, run)
    (copy,) = timing.take_turns(5, lambda: copied(matrices))
    walk, losses = timed.result
    bandwidth = 2 * matrices.nbytes / copy.seconds / 1e9
    return walk, np.asarray(losses), timed.seconds / len(order), bandwidth


def curves(frames: np.ndarray, config: FitConfig, seed: int) -> dict[str, Any]:
    """Both modes: the fast one from the published one's weights at every bit, and each alone."""
    published = dataclasses.replace(config, mode="published", blocks_per_step=1)
    make = lambda settings: driver.prepare(frames, settings, jax.random.key(seed))
    slow_set, fast_set = make(published), make(config)
    state = boosting.init(frames.shape[1], published, jax.random.key(seed + 1))
    slow_infos, shadow_infos = [], []
    for bit in range(config.num_bits):
        _, shadow = driver.step(state, fast_set, config)
        state, info = driver.step(state, slow_set, published)
        slow_infos.append(info)
        shadow_infos.append(shadow)
        print(
            f"bit {bit}: published {info.objective:.5f} ({info.seconds:.1f} s), "
            f"fast {shadow.objective:.5f} ({shadow.seconds:.1f} s)",
            flush=True,
        )
    hasher = state.bits.hasher.prefix(config.num_bits)
    slow_errors = approximation_errors(slow_set.host, hasher, config)
    _, alone = driver.fit(frames, config, jax.random.key(seed))
    listed = lambda infos: {name: array.tolist() for name, array in by_field(infos).items()}
    return {
        "published": listed(slow_infos) | {"approximation_error": slow_errors[0].tolist()},
        "fast_from_published": listed(shadow_infos),
        "fast": alone.to_dict(),
    }


def curve_rows(curve: dict[str, Any], torch_seconds: float | None) -> list[dict[str, Any]]:
    """Rows: objective at every bit, error of the code, time."""
    slow, shadow, fast = curve["published"], curve["fast_from_published"], curve["fast"]
    margins = np.subtract(slow["objective"], shadow["objective"])
    bits, worst, never_worse = len(margins), int(margins.argmin()), bool(margins.min() >= 0)
    size = f"{bits} bits, {fast['num_frames']} frames"
    pair = shadow["objective"][worst], slow["objective"][worst]
    name = "objective from the same weights, worst bit"
    rows = [timing.row(name, size, *pair, "error", never_worse)]
    for bit in (25, 50, 100, 150):
        if bit <= bits:
            ours, reference = (mode["approximation_error"][bit - 1] for mode in (fast, slow))
            name = f"approximation error after {bit} bits"
            rows.append(timing.row(name, size, ours, reference, "error", ours <= reference))
    if torch_seconds is not None:
        # The published steps were taken by our own, checked, published mode; PyTorch's time for
        # them is their number times the measured time of one.
        first = min(bits, 25)
        steps = int(np.sum(slow["steps"][:first]))
        pair = statistics.median(fast["seconds"][1:]) * first, steps * torch_seconds
        name, taken = f"time to the same objective, {first} bits", f"{steps} published steps"
        rows.append(timing.row(name, f"{size}, {taken}", *pair, "s", never_worse))
    return rows


def scale_row(frames: np.ndarray, config: FitConfig, plan: Any, seed: int) -> dict[str, Any]:
    """A row: a whole code on many frames, with predicted and measured memory beside the time."""
    start, cpu_start = time.perf_counter(), time.process_time()
    key, plan = jax.random.key(seed), None if plan == "auto" else plan
    _, info = driver.fit(frames, config, key, plan=plan, progress=True)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    name, size = f"train {config.num_bits} bits, plan {info.plan}", f"{info.num_frames} frames"
    return timing.row(name, size, seconds, None, "s") | {
        "cpu_seconds": cpu_seconds,
        "seconds_per_bit": statistics.median(info.seconds.tolist()),
        "predicted_gigabytes": info.predicted_bytes / 1e9,
        "peak_gigabytes": info.peak_bytes / 1e9,
        "objective": info.objective.tolist(),
        "approximation_error": info.approximation_error.tolist(),
        "num_left_over": info.num_left_over,
    }


def enlarge(frames: np.ndarray, num_frames: int, seed: int) -> np.ndarray:
    """The first frames, or where there are too few, further ones mixed from random pairs."""
    missing = num_frames - len(frames)
    if missing <= 0:
        return frames[:num_frames]
    rng = np.random.default_rng(seed)
    out = np.empty((num_frames, frames.shape[1]), np.float32)
    out[: len(frames)] = frames
    for first in range(len(frames), num_frames, 50_000):
        part = out[first : first + 50_000]
        gains = rng.uniform(0.0, 1.0, (len(part), 1)).astype(np.float32)
        pairs = rng.integers(0, len(frames), (2, len(part)))
        part[:] = gains * frames[pairs[0]] + (1 - gains) * frames[pairs[1]]
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return out


def _frames(seed: int) -> tuple[np.ndarray, str]:
    """Frames (N, D) of mixtures and a word on where they come from."""
    config = TrainConfig(dictionary_fraction=0.25, seed=seed)
    speech, noise, source = timing.recordings(config)
    mixtures = training_mixtures(speech, noise, config)
    return training.sample_frames(mixtures, config).frames, f"{source} mixtures"


if __name__ == "__main__":
    launch.run(_define_flags, main)

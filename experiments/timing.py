"""What the benchmarks share: timing calls that take turns, rows of a record, their recordings."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from blsh_jax import corpora
from blsh_jax.commands import launch
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Loaded

_REST, _TURN = 0.05, 0.01  # seconds
COLUMNS = ("name", "size", "ours", "reference", "ratio", "unit", "agrees")


class Timing(NamedTuple):
    """Medians over repeated calls, and the result of one."""

    seconds: float
    core_seconds: float
    result: Any


def take_turns(repeats: int, *calls: Callable[[], Any]) -> list[Timing]:
    """Time calls that take turns; their first runs compile and are not counted.

    Before each turn threads of the one before get time to fall asleep: those of OpenMP keep a core
    busy for some ms. A turn of a short call is many of them in a row.
    """
    results = [jax.block_until_ready(call()) for call in calls]
    taken: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, taken, strict=True):
            time.sleep(_REST)
            jax.block_until_ready(call())  # wakes its own threads
            count, start, core_start = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - start < _TURN or not count:
                jax.block_until_ready(call())
                count += 1
            passed = time.perf_counter() - start, time.process_time() - core_start
            times.append((passed[0] / count, passed[1] / count))
    timings = []
    for times, result in zip(taken, results, strict=True):
        seconds, core_seconds = (statistics.median(kind) for kind in zip(*times, strict=True))
        timings.append(Timing(seconds, core_seconds, result))
    return timings


def row(
    name: str,
    size: str,
    ours: float | None,
    reference: float | None,
    unit: str,
    agrees: bool | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row; ``ratio`` is how many times better ours is: by time, or by rate where it has one.

    Args:
        name: what is timed, against what.
        size: of the problem.
        ours: our value; None where nothing is timed.
        reference: the other's, if there is one.
        unit: of both; more is better where it is something per second or times real time.
        agrees: whether the results are the same, if that was looked at.
        **more: further entries.
    """
    ratio = reference / ours if reference and ours else None
    if ratio and (unit.endswith("/s") or unit == "times real time"):
        ratio = 1 / ratio
    found = (name, size, ours, reference, ratio, unit, agrees)
    return dict(zip(COLUMNS, found, strict=True)) | more


def recordings(config: TrainConfig) -> tuple[Loaded, Loaded, str]:
    """Speech and noise of the flags, or the synthetic corpus without them, and which it is.

    Raises:
        ValueError: one of the two flags is missing.
    """
    given = flags.FLAGS.speech, flags.FLAGS.noise
    if given == (None, None):
        key = jax.random.key(config.seed)
        speech = corpora.synthetic_speech(jax.random.fold_in(key, 0), 8, 4)
        return speech, corpora.synthetic_noise(jax.random.fold_in(key, 1)), "synthetic"
    if None in given:
        raise ValueError("give both --speech and --noise, or neither")
    speech, noise = launch.recordings(config, "speech", "noise")
    return speech, noise, "real"


def processors() -> list[str]:
    """The model of every core, where the system describes its processor in a file."""
    return [line.partition(":")[2].strip() for line in _described("model name")]


def instruction_sets() -> list[str]:
    """What the processor's vector units can do, as the system names it."""
    names = {word for line in _described("flags", "Features") for word in line.split()}
    return sorted(x for x in names if x.startswith(("avx", "gfni", "popcnt", "asimd", "sve")))


def _described(*starts: str) -> list[str]:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return [line for line in lines if line.startswith(starts)]

"""Time denoising as people use it: files from the first start on, an hour, a folder, hop by hop.

    python -m experiments.bench_denoise --output bench_denoise.json

Whole processes of `blsh denoise` are timed from their start to their end: on a file of three
seconds with an empty compilation cache and with a filled one, on a file of an hour, and on a folder
of 50 short files, mono and stereo. In this process, compiled, 20 seconds are denoised by both
pretrained models, and hops on one core. Beside them stand the tools of `--tools` (pip install -e
'.[tools]'), and of --dtln=DIR and --gtcrn=DIR where their files are at hand. Medians; sounds are
speech and noise of the synthetic corpus. Takes three minutes on two cores.
"""

import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
from absl import flags

import blsh_jax as blsh
from blsh_jax import corpora
from blsh_jax.commands import launch
from blsh_jax.denoising.stream import Stream
from blsh_jax.export import costs
from experiments import denoisers, timing, tools

_RATE = denoisers.SAMPLE_RATE
_BLSH = [sys.executable, "-m", "blsh_jax", "denoise", "--quiet", "--overwrite"]
_TOOL = [sys.executable, "-m", "experiments.tools"]
_MODELS = ("default", "small")
_HOPS = 2000


class Process(NamedTuple):
    """What a process took.

    Attributes:
        seconds: on the clock, from its start to its end.
        core_seconds: of processor time.
    """

    seconds: float
    core_seconds: float


def run(command: list[str], cache: Path) -> Process:
    """Run a command to its end.

    Args:
        command: what to run.
        cache: the user's cache folder for it.

    Raises:
        RuntimeError: it failed.
    """
    settings = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=settings | {"XDG_CACHE_HOME": str(cache)})
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with status {process.returncode}")
    return Process(seconds, used.ru_utime + used.ru_stime)


def _process_rows(noisy: np.ndarray, repeats: int, hour: int) -> list[dict[str, Any]]:
    """Rows on whole processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, target = str(folder / "short.wav"), str(folder / "out.wav")
        soundfile.write(short, noisy[: 3 * _RATE], _RATE)
        ours = [*_BLSH, short, target]
        theirs = {
            tool: [*_TOOL, short, target, tool, *filter(None, [files])]
            for tool, files in denoisers.tools_from_flags().items()
            if tool in tools.PROGRAMS
        }
        runs: dict[str, list[Process]] = {name: [] for name in ("first", "later", *theirs)}
        for number in range(repeats):  # a cache of its own is empty
            runs["first"].append(run(ours, folder / f"cache{number}"))
            runs["later"].append(run(ours, folder / f"cache{number}"))
            for tool, command in theirs.items():
                runs[tool].append(run(command, folder / "none"))
        rows = [
            _row(f"process, {start} start", "a file of 3 s", _median(runs[start]), tool, found)
            for start in ("first", "later")
            for tool, found in {t: _median(runs[t]) for t in theirs}.items() or [("", None)]
        ]
        cache = folder / "cache0"
        if hour:
            long = str(folder / "long.wav")
            soundfile.write(long, np.resize(noisy, hour * _RATE), _RATE)
            rows.append(_row("process", f"a file of {hour} s", run(_BLSH + [long, target], cache)))
        several = folder / "several"
        several.mkdir()
        rng = np.random.default_rng(0)
        for number in range(50):
            place, length = rng.integers(len(noisy) - 5 * _RATE), rng.integers(_RATE, 5 * _RATE)
            part = noisy[place : place + length]
            rows_of = [part, part[::-1]] if number % 3 == 2 else [part]
            soundfile.write(several / f"{number}.wav", np.stack(rows_of, axis=1), _RATE)
        command = _BLSH + [str(several), str(folder / "denoised")]
        for start, kept in (("first", folder / "empty"), ("later", cache)):
            found = run(command, kept)
            rows.append(_row(f"process, {start} start", "50 files of 1 to 5 s", found))
    return rows


def _row(
    name: str, size: str, ours: Process, tool: str = "", reference: Process | None = None
) -> dict[str, Any]:
    name = f"{name}, {tool}" if tool else name
    row = timing.row(name, size, ours.seconds, reference and reference.seconds, "s")
    return row | {"core_seconds": ours.core_seconds}


def _median(runs: list[Process]) -> Process:
    return Process(*np.median(runs, axis=0).tolist())


def _warm_rows(noisy: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Rows on 20 seconds, compiled, beside each tool."""
    heard, chosen = noisy[: 20 * _RATE], denoisers.tools_from_flags()
    others = [denoisers.system(name, folder).separate for name, folder in chosen.items()]
    mixture = jnp.asarray(heard[None]), jnp.zeros((1, len(heard)), jnp.float32)
    models = [blsh.load_pretrained(name) for name in _MODELS]
    calls: list[Callable[[], Any]] = [
        functools.partial(blsh.denoise, heard, _RATE, model) for model in models
    ]
    calls += [functools.partial(other, *mixture) for other in others]
    speeds = [len(heard) / _RATE / t.seconds for t in timing.take_turns(repeats, *calls)]
    size, unit = "20 s, in one process", "times real time"
    return [
        timing.row(f"denoise by {model}" + (f", {tool}" if tool else ""), size, ours, theirs, unit)
        for model, ours in zip(_MODELS, speeds, strict=False)
        for tool, theirs in zip(chosen, speeds[len(models) :], strict=True) or [("", None)]
    ]


def _hop_row(noisy: np.ndarray) -> dict[str, Any]:
    """A row on hops of a live signal, on one core where the system can do that."""
    # A process of its own, as XLA counts the cores when it starts.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        one_core, took = process.submit(_hops, noisy).result()
    median, slow = np.percentile(took, [50, 99]).tolist()
    where = "one core" if one_core else "all cores"
    size = f"a hop of 256 samples, {where}"
    return timing.row("stream, live", size, median, None, "ms", percentile_99=slow)


def _hops(noisy: np.ndarray) -> tuple[bool, list[float]]:
    """Whether this process has one core, and the milliseconds that hops take."""
    one_core = costs.use_one_core()
    model = blsh.load_pretrained().without_look_ahead()
    hop, stream = model.separation.stft.hop_length, Stream(model, pre_roll=False)
    took = []
    for number in range(_HOPS + 20):  # of which the first compile
        heard = noisy[number * hop % (len(noisy) - hop) :][:hop]
        start = time.perf_counter()
        stream.feed(heard)
        took.append(1e3 * (time.perf_counter() - start))
    return one_core, took[20:]


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    denoisers.define_tools(["rnnoise"])
    flags.DEFINE_integer("repeats", 5, "Repetitions; the record holds medians.", lower_bound=1)
    flags.DEFINE_integer("long_seconds", 3600, "Seconds of the long file; 0 for none.", 0)
    flags.DEFINE_integer("seed", 0, "Of the sounds.")


def main() -> None:
    """Flags, benchmarks, record."""
    values = flags.FLAGS
    key = jax.random.key(values.seed)
    speech = corpora.synthetic_speech(jax.random.fold_in(key, 0), 8, 4)
    noise = corpora.synthetic_noise(jax.random.fold_in(key, 1))
    mixtures = corpora.make_mixtures(speech, noise, 5.0, values.seed)
    noisy = np.concatenate([mixture.mixture for mixture in mixtures])
    noisy = np.resize(0.5 * noisy / np.abs(noisy).max(), 100 * _RATE).astype(np.float32)
    rows = _process_rows(noisy, values.repeats, values.long_seconds)
    rows += _warm_rows(noisy, values.repeats)
    rows.append(_hop_row(noisy))
    names = ("repeats", "long_seconds", "seed")
    config = {name: values[name].value for name in names} | {
        "tools": list(denoisers.tools_from_flags()),
        "cpu": timing.processors(),
        "instruction_sets": timing.instruction_sets(),
    }
    launch.write(rows, timing.COLUMNS, config, load_average=os.getloadavg())


if __name__ == "__main__":
    launch.run(_define_flags, main)

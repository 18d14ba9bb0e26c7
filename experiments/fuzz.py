"""Read damaged files, each in a child process with a limit on time and memory.

    python -m experiments.fuzz --cases 10000 --output fuzz.json

Takes ten minutes on two cores. Damages --cases audio files and denoises them, and a fifth as many
model files and checkpoints and loads them. Expect zeros in every column from ``damaged`` to
``memory``: a file is refused with an error that names it, or what comes of it is whole, or
``--partial`` was asked for and it is named. Kind and seed make a case:
``CASES["audio"](random("audio", seed), folder)`` repeats one.
"""

import collections
import dataclasses
import functools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from blsh_jax import models
from blsh_jax.commands import launch
from blsh_jax.models import Model
from experiments import damaged_audio, damaged_models

_COLUMNS = [
    *("kind", "cases", "whole", "partial", "refused"),
    *("damaged", "uncaught", "crash", "hang", "memory", "most_seconds", "most_mb"),
]
_LIMIT_SECONDS = 10.0
_LIMIT_MB = 1000.0
_START_SECONDS = 300.0
_SHARES = {"audio": 1.0, "model": 0.2, "checkpoint": 0.2}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        kind: of file.
        seed: of the case.
        outcome: whole, partial or refused; damaged: what counts as done is not what was read;
            uncaught: another error; crash, hang, memory: the process ended, or passed a limit.
        detail: the error; empty for the first three.
        seconds: that it took.
        mb: the most memory of the process so far beyond that of the model, in 10^6 bytes.
    """

    kind: str
    seed: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    mb: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether it should not have happened."""
        return self.outcome not in ("whole", "partial", "refused")


def _audio(rng: np.random.Generator, folder: Path) -> str:
    damaged = damaged_audio.damaged_audio(rng)
    return damaged_audio.denoise(damaged, _model(), bool(rng.random() < 0.3), folder)


def _model_file(rng: np.random.Generator, folder: Path) -> str:
    (folder / "model.npz").write_bytes(damaged_models.damaged_model(rng))
    return _as_whole(damaged_models.read_model(folder / "model.npz"))


def _checkpoint(rng: np.random.Generator, folder: Path) -> str:
    (folder / "model.checkpoint.npz").write_bytes(damaged_models.damaged_checkpoint(rng))
    return _as_whole(damaged_models.read_checkpoint(folder / "model.checkpoint.npz"))


def _as_whole(outcome: str) -> str:
    return "whole" if outcome == "loaded" else outcome


# Makes one case in an empty folder and reads it: whole, partial or refused; all else is raised.
Case = Callable[[np.random.Generator, Path], str]
CASES: dict[str, Case] = {"audio": _audio, "model": _model_file, "checkpoint": _checkpoint}


def random(kind: str, seed: int) -> np.random.Generator:
    """What decides all of a case."""
    return np.random.default_rng([seed, *kind.encode()])


def _warm_up() -> None:
    """Compiles what most cases need, so that neither time nor memory of it counts as theirs."""
    with tempfile.TemporaryDirectory() as name:
        for channels in (1, 2):
            whole = damaged_audio.whole_audio("WAV", "PCM_16", np.zeros((channels, 800)), 8_000)
            damaged = damaged_audio.Damaged("WAV", whole, whole)
            damaged_audio.denoise(damaged, _model(), False, _emptied(Path(name)))


def fuzz(
    counts: Mapping[str, int],
    seed: int,
    cases: Mapping[str, Case] = CASES,
    warm_up: Callable[[], object] = _warm_up,
) -> Iterator[Outcome]:
    """Many cases, one after another, in a process that is replaced when it fails.

    Args:
        counts: cases by kind.
        seed: of the first case; the others follow it.
        cases: what makes those of a kind; functions of modules, as another process calls them.
        warm_up: what that process does first.
    """
    worker = None
    try:
        for kind, count in counts.items():
            for number in range(seed, seed + count):
                worker = worker or _Worker(warm_up)
                outcome = worker.run(kind, number, cases[kind])
                yield outcome
                if outcome.outcome in ("crash", "hang", "memory"):
                    worker.end()
                    worker = None
    finally:
        if worker is not None:
            worker.end()


class _Worker:
    """A child process that runs cases, and how much memory it had before them."""

    def __init__(self, warm_up: Callable[[], object]):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, warm_up), daemon=True)
        self._process.start()
        other.close()
        if not self._pipe.poll(_START_SECONDS):
            self.end()
            raise RuntimeError("no process for the cases could be started")
        self._pipe.recv()
        self._base = self._most_memory()

    def run(self, kind: str, seed: int, case: Case) -> Outcome:
        """One case, watched."""
        self._pipe.send((case, random(kind, seed)))
        start, result = time.monotonic(), functools.partial(Outcome, kind, seed)
        while True:
            there = self._pipe.poll(0.02)
            seconds, mb = time.monotonic() - start, max(0.0, self._most_memory() - self._base)
            if mb > _LIMIT_MB:
                return result("memory", "", seconds, mb)
            if there:
                break
            if seconds > _LIMIT_SECONDS:
                return result("hang", "", seconds, mb)
        try:
            outcome, detail = self._pipe.recv()
        except EOFError:
            self._process.join()
            return result("crash", f"exit status {self._process.exitcode}", seconds, mb)
        return result(outcome, detail, seconds, mb)

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _most_memory(self) -> float:
        """Of the process so far, in 10^6 bytes, where the system says it in a file (Linux)."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except OSError:
            return 0.0
        return sum(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:"))


def _work(pipe: Connection, warm_up: Callable[[], object]) -> None:
    """What the child process does: takes cases and says what came of them."""
    for printed in (1, 2):  # by decoders
        os.dup2(os.open(os.devnull, os.O_WRONLY), printed)
    warm_up()
    pipe.send("ready")
    with tempfile.TemporaryDirectory() as name:
        while True:
            case, rng = pipe.recv()
            try:
                outcome, detail = case(rng, _emptied(Path(name))), ""
            except AssertionError as error:
                outcome, detail = "damaged", str(error)[:500]
            except Exception as error:  # which kind it is, is what is asked for
                outcome, detail = "uncaught", f"{type(error).__name__}: {error}"[:500]
            pipe.send((outcome, detail))


@functools.cache
def _model() -> Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        path.write_bytes(damaged_models.whole_model())
        return models.load(path)


def _emptied(folder: Path) -> Path:
    for path in folder.iterdir():
        path.unlink()
    return folder


def rows(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What came of the cases of each kind, counted."""
    by_kind: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault(outcome.kind, []).append(outcome)
    return [
        dict.fromkeys(_COLUMNS, 0)
        | {"kind": kind, "cases": len(found)}
        | collections.Counter(outcome.outcome for outcome in found)
        | {
            "most_seconds": round(max(outcome.seconds for outcome in found), 2),
            "most_mb": round(max(outcome.mb for outcome in found)),
        }
        for kind, found in by_kind.items()
    ]


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    flags.DEFINE_integer("cases", 10_000, "Audio files; a fifth as many of others.", lower_bound=5)
    flags.DEFINE_integer("seed", 0, "Of the first case; the others follow it.", lower_bound=0)


def main() -> None:
    """Flags, library, record."""
    cases, seed = flags.FLAGS.cases, flags.FLAGS.seed
    counts = {kind: int(cases * share) for kind, share in _SHARES.items()}
    outcomes = []
    for outcome in fuzz(counts, seed):
        outcomes.append(outcome)
        if outcome.bad:
            print(f"{outcome.kind} {outcome.seed}: {outcome.outcome} {outcome.detail}", flush=True)
    bad = [dataclasses.asdict(outcome) for outcome in outcomes if outcome.bad]
    launch.write(rows(outcomes), _COLUMNS, {"cases": cases, "seed": seed}, bad=bad)


if __name__ == "__main__":
    launch.run(_define_flags, main)

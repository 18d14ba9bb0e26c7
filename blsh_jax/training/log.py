"""The training log: a progress bar for people, JSON lines for programs."""

import json
import os
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from blsh_jax.paper.boosting import BitInfo

_BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}"


class TrainingLog:
    """Where a training run reports to; a context manager.

    The file gets one object per line: first ``start`` with the settings and the memory plan, then
    one per bit with the entries of ``BitInfo``, last ``end``. A run that goes on from a checkpoint
    adds to the file, after its last whole line.
    """

    def __init__(self, path: str | os.PathLike | None, progress: bool, num_bits: int, done: int):
        """Open the log.

        Args:
            path: JSON-lines file, or None.
            progress: show a bar.
            num_bits: L.
            done: bits that a checkpoint brought.
        """
        self._file = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            _cut_half_line(Path(path))
            self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by __exit__)
        self._bar = tqdm(
            total=num_bits, initial=done, desc="bit", disable=not progress, bar_format=_BAR
        )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._bar.close()
        if self._file is not None:
            with self._file:
                self._write("end", error=None if error is None else f"{kind.__name__}: {error}")

    def start(self, message: str, **entries: Any) -> None:
        """Say what begins; ``message`` is for the screen."""
        if not self._bar.disable:
            self._bar.write(message)
        self._write("start", **entries)

    def bit(self, number: int, info: BitInfo, frames_per_second: float) -> None:
        """Report a bit, ``number`` counting from 1."""
        self._bar.set_postfix_str(
            f"objective {info.objective:.4f} epsilon {info.epsilon:.4f} beta {info.beta:.3f} "
            f"balance {info.balance:+.2f} {frames_per_second:.3g} frames/s"
        )
        self._bar.update(number - self._bar.n)
        self._write("bit", bit=number, **info._asdict(), frames_per_second=frames_per_second)

    def _write(self, event: str, **entries: Any) -> None:
        if self._file is not None:
            line = {"event": event, "time": time.time(), **entries}
            self._file.write(json.dumps(line) + "\n")


def _cut_half_line(path: Path) -> None:
    """Remove what a full disk or a power cut left of a line that is not whole."""
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)

"""Denoising files, whole folders, or standard input to standard output."""

import contextlib
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from blsh_jax.corpora import audio
from blsh_jax.denoising.recordings import check_settings, denoise_file
from blsh_jax.models.model import Model

PIPE = "-"
_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]"


class Settings(NamedTuple):
    """How files are denoised.

    Attributes:
        dry_wet: 1 gives the denoised recording, 0 the recording as it is.
        max_attenuation_db: no frequency is attenuated by more than this, in dB.
        overwrite: write over files that are already there.
        partial: denoise files that are cut short or damaged as far as they go.
    """

    dry_wet: float = 1.0
    max_attenuation_db: float = math.inf
    overwrite: bool = False
    partial: bool = False


class Found(NamedTuple):
    """What there is to do.

    Attributes:
        pairs: files to read, and to write.
        failed: one message for each folder that could not be listed; it names the folder.
    """

    pairs: list[tuple[Path, Path]]
    failed: list[str]


class Summary(NamedTuple):
    """What became of the files.

    Attributes:
        done: files denoised.
        kept: files that were already there.
        failed: one message for each file that could not be denoised; it names the file.
        cut_short: one message for each file denoised as far as it goes; it names the file.
        notes: messages on what outputs do not hold of their inputs; each names the file.
        left: files that were not come to, or not finished, as the run was stopped.
        audio_seconds: length of what was denoised.
        seconds: time taken.
        stopped: what stopped the run, to be raised again; None if nothing did.
    """

    done: int
    kept: int
    failed: list[str]
    cut_short: list[str]
    notes: list[str]
    left: int
    audio_seconds: float
    seconds: float
    stopped: KeyboardInterrupt | SystemExit | None = None

    def __str__(self) -> str:
        counts = [f"{self.done} denoised"]
        counts[0] += f" ({len(self.cut_short)} cut short or damaged)" * bool(self.cut_short)
        counts += [f"{self.kept} already there"] * bool(self.kept)
        counts += [f"{len(self.failed)} failed"] * bool(self.failed)
        counts += [f"{self.left} not done"] * bool(self.left)
        speed = self.audio_seconds / max(self.seconds, 1e-9)
        took = (
            f"{self.audio_seconds:.0f} s of audio in {self.seconds:.1f} s ({speed:.0f} x real time)"
        )
        return ", ".join(counts) + (f": {took}" if self.done else "")


def find_pairs(source: Path, target: Path) -> Found:
    """What to read and what to write.

    Args:
        source: a file, or a folder, which is searched recursively.
        target: the file or folder to write; a folder takes a file under its own name, and keeps the
            tree of a folder.

    Returns:
        The pairs, by name, and the folders that could not be listed.

    Raises:
        ValueError: there is nothing to read, or an input would be written over.
    """
    failed: list[str] = []
    if source.is_dir():
        found = audio.find_audio(
            source, lambda error: failed.append(f"{error.filename}: {error.strerror}")
        )
        pairs = [(path, target / path.relative_to(source)) for path in found]
    elif source.exists():
        pairs = [(source, target / source.name if target.is_dir() else target)]
    else:
        raise ValueError(f"{source}: no such file or folder")
    if not pairs and not failed:
        raise ValueError(f"{source}: no audio files in this folder")
    inputs = {_real(path) for path, _ in pairs}
    for _, path in pairs:
        if _real(path) in inputs:
            raise ValueError(f"{path}: is also an input; choose another OUTPUT")
    if source.is_dir() and _real(target).is_relative_to(_real(source)):
        raise ValueError(f"{target}: lies inside {source}, whose files are read; choose another")
    return Found(pairs, failed)


def _real(path: Path) -> Path:
    """The path without links, as far as they lead anywhere."""
    return Path(os.path.realpath(path))


def denoise_files(pairs: list[tuple[Path, Path]], model: Model, settings: Settings) -> Summary:
    """Denoise files one after another; one that fails does not stop the others.

    A file to write that is already there is kept, whatever it holds: it came from an earlier run,
    which gives a file its name only once it is whole, or from somebody else.

    Args:
        pairs: files to read, and to write. Of several that would be written to one file, through
            links or as the file system takes their names for the same, the first is.
        model: what to denoise with.
        settings: how.

    Returns:
        What became of them, also when KeyboardInterrupt or SystemExit stopped the run: the file in
        work is given up then, and the exception is in ``stopped``.

    Raises:
        ValueError: a setting is out of range.
    """
    check_settings(settings.dry_wet, settings.max_attenuation_db)
    start, done, kept, heard = time.perf_counter(), 0, 0, 0.0
    failed: list[str] = []
    cut_short: list[str] = []
    notes: list[str] = []
    stopped: KeyboardInterrupt | SystemExit | None = None
    written: dict[tuple[int, int], Path] = {}
    try:
        total = sum(_seconds(*pair, settings.overwrite) for pair in pairs)
        with tqdm(total=total, bar_format=_BAR, disable=None) as bar:
            for source, target in pairs:
                bar.set_description(source.name)
                try:
                    if target.exists() and (same := written.get(_identity(target))):
                        raise ValueError(f"{source}: its output is that of {same}, too: {target}")
                    if target.is_file() and not settings.overwrite:
                        kept += 1
                    else:
                        heard += denoise_file(
                            source,
                            target,
                            model,
                            dry_wet=settings.dry_wet,
                            max_attenuation_db=settings.max_attenuation_db,
                            partial=settings.partial,
                            progress=bar.update,
                            cut_short=cut_short.append,
                            note=notes.append,
                        )
                        done += 1
                    written[_identity(target)] = source
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    failed.append(str(error) if str(source) in str(error) else f"{source}: {error}")
    except (KeyboardInterrupt, SystemExit) as stop:
        stopped = stop
    left = len(pairs) - done - kept - len(failed)
    seconds = time.perf_counter() - start
    return Summary(done, kept, failed, cut_short, notes, left, heard, seconds, stopped)


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def piped(source: str, target: str) -> Iterator[tuple[Path, Path]]:
    """Paths for INPUT and OUTPUT, of which either or both may be ``-``.

    Standard input is kept in a temporary file until it ends, and standard output is a WAV file that
    is sent only once it is whole, so that memory stays bounded and nothing broken is passed on.

    Args:
        source: a path, or ``-`` for standard input.
        target: a path, or ``-`` for standard output.

    Yields:
        The path to read and the path to write.

    Raises:
        ValueError: a folder is to be sent to standard output.
    """
    if target == PIPE and source != PIPE and Path(source).is_dir():
        raise ValueError(f"{source}: is a folder, standard output takes one file; give a folder")
    with tempfile.TemporaryDirectory(prefix="blsh-") as folder:
        read = Path(folder, "standard input") if source == PIPE else Path(source)
        write = Path(folder, "out.wav") if target == PIPE else Path(target)
        if source == PIPE:
            with read.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        yield read, write
        if target == PIPE and write.exists():
            _send(write, sys.stdout.buffer)


def _send(path: Path, stream: BinaryIO) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, stream)
    stream.flush()


def _seconds(source: Path, target: Path, overwrite: bool) -> float:
    """Seconds to denoise, for the progress bar; 0 if that will fail, which is reported then."""
    try:
        return 0.0 if target.is_file() and not overwrite else audio.seconds(source)
    except OSError:
        return 0.0

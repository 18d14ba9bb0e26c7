"""Denoising files, whole folders, or standard input to standard output."""

import contextlib
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
    """

    dry_wet: float = 1.0
    max_attenuation_db: float = math.inf
    overwrite: bool = False


class Summary(NamedTuple):
    """What became of the files.

    Attributes:
        done: files denoised.
        kept: files that were already there.
        failed: one message for each file that could not be denoised; it names the file.
        audio_seconds: length of what was denoised.
        seconds: time taken.
    """

    done: int
    kept: int
    failed: list[str]
    audio_seconds: float
    seconds: float

    def __str__(self) -> str:
        counts = [f"{self.done} denoised"]
        counts += [f"{self.kept} already there"] * bool(self.kept)
        counts += [f"{len(self.failed)} failed"] * bool(self.failed)
        speed = self.audio_seconds / max(self.seconds, 1e-9)
        took = (
            f"{self.audio_seconds:.0f} s of audio in {self.seconds:.1f} s ({speed:.0f} x real time)"
        )
        return ", ".join(counts) + (f": {took}" if self.done else "")


def find_pairs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """What to read and what to write.

    Args:
        source: a file, or a folder, which is searched recursively.
        target: the file or folder to write; a folder takes a file under its own name, and keeps the
            tree of a folder.

    Raises:
        ValueError: there is nothing to read, or an input would be written over.
    """
    if source.is_dir():
        found = audio.find_audio(source)
        pairs = [(path, target / path.relative_to(source)) for path in found]
    elif source.exists():
        pairs = [(source, target / source.name if target.is_dir() else target)]
    else:
        raise ValueError(f"{source}: no such file or folder")
    if not pairs:
        raise ValueError(f"{source}: no audio files in this folder")
    inputs = {path.resolve() for path, _ in pairs}
    for _, path in pairs:
        if path.resolve() in inputs:
            raise ValueError(f"{path}: is also an input; choose another OUTPUT")
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target}: lies inside {source}, whose files are read; choose another")
    return pairs


def denoise_files(pairs: list[tuple[Path, Path]], model: Model, settings: Settings) -> Summary:
    """Denoise files one after another; one that fails does not stop the others.

    Args:
        pairs: files to read, and to write.
        model: what to denoise with.
        settings: how.

    Returns:
        What became of them.

    Raises:
        ValueError: a setting is out of range.
    """
    check_settings(settings.dry_wet, settings.max_attenuation_db)
    start, done, failed, heard = time.perf_counter(), 0, [], 0.0
    wanted = [pair for pair in pairs if settings.overwrite or not pair[1].exists()]
    with tqdm(
        total=sum(_seconds(path) for path, _ in wanted), bar_format=_BAR, disable=None
    ) as bar:
        for source, target in wanted:
            bar.set_description(source.name)
            try:
                heard += _denoise_one(source, target, model, settings, bar.update)
                done += 1
            except (ValueError, OSError) as error:
                failed.append(str(error) if str(source) in str(error) else f"{source}: {error}")
    kept = len(pairs) - len(wanted)
    return Summary(done, kept, failed, heard, time.perf_counter() - start)


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


def _denoise_one(
    source: Path,
    target: Path,
    model: Model,
    settings: Settings,
    progress: Callable[[float], object],
) -> float:
    return denoise_file(
        source,
        target,
        model,
        dry_wet=settings.dry_wet,
        max_attenuation_db=settings.max_attenuation_db,
        progress=progress,
    )


def _seconds(path: Path) -> float:
    """Length of a file for the progress bar; 0 if it cannot be read, which is reported later."""
    try:
        with audio.reading(path) as file:
            return file.seconds
    except audio.AudioError:
        return 0.0

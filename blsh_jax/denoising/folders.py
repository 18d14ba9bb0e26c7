"""Denoising files, whole folders, or standard input to standard output."""

import contextlib
import dataclasses
import math
import os
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from blsh_jax.corpora import audio
from blsh_jax.denoising.recordings import check_settings, denoise_file
from blsh_jax.models.model import Model

PIPE = "-"
PREVIEW_SECONDS = 10.0
_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}, {remaining} left]"
_LONGEST_NAME = 255  # bytes
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class Settings(NamedTuple):
    """How files are denoised.

    Attributes:
        dry_wet: 1 gives the denoised recording, 0 the recording as it is.
        max_attenuation_db: no frequency is attenuated by more than this, in dB.
        overwrite: write over files that are already there.
        partial: denoise files that are cut short or damaged as far as they go.
        preview: denoise the first ``PREVIEW_SECONDS`` alone, over an earlier preview.
        quiet: show no progress.
    """

    dry_wet: float = 1.0
    max_attenuation_db: float = math.inf
    overwrite: bool = False
    partial: bool = False
    preview: bool = False
    quiet: bool = False


class Found(NamedTuple):
    """What there is to do.

    Attributes:
        pairs: files to read, and to write.
        failed: one message for each input that is not there, and each folder that could not be
            listed; it names the input or the folder.
    """

    pairs: list[tuple[Path, Path]]
    failed: list[str]


Status = Literal["denoised", "kept", "outdated", "failed", "not done"]


@dataclasses.dataclass
class Outcome:
    """What became of a file.

    Attributes:
        source: the file to read.
        target: the file to write.
        status: ``kept`` if ``target`` was already there, ``outdated`` if it is older than
            ``source``, too, ``not done`` if the run was stopped before or in the middle.
        seconds: of audio that were denoised.
        cut_short: whether it was denoised as far as it goes, being cut short or damaged.
        messages: why it failed, what was cut off and what was lost; each names a file.
    """

    source: Path
    target: Path
    status: Status = "not done"
    seconds: float = 0.0
    cut_short: bool = False
    messages: list[str] = dataclasses.field(default_factory=list)


class Summary(NamedTuple):
    """What became of all files.

    Attributes:
        outcomes: of each file.
        unlisted: as ``Found.failed``.
        seconds: time taken.
        stopped: what stopped the run, to be raised again; None if nothing did.
    """

    outcomes: list[Outcome]
    unlisted: list[str]
    seconds: float
    stopped: KeyboardInterrupt | SystemExit | None = None

    def count(self, status: Status) -> int:
        """How many files ended so; of ``failed`` with the inputs that are not there."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        return counts[status] + len(self.unlisted) * (status == "failed")

    @property
    def messages(self) -> list[str]:
        """All that is to be said of single files, in their order."""
        of_files = [text for outcome in self.outcomes for text in outcome.messages]
        return self.unlisted + of_files

    @property
    def compared(self) -> list[tuple[Path, Path]]:
        """The files that have an output of theirs, and the outputs."""
        there = ("denoised", "kept")
        return [(o.source, o.target) for o in self.outcomes if o.status in there]

    @property
    def succeeded(self) -> bool:
        """Whether every output is that of its input."""
        return not (self.count("failed") or self.count("outdated") or self.count("not done"))

    def __str__(self) -> str:
        done, cut_short = self.count("denoised"), sum(o.cut_short for o in self.outcomes)
        counts = [f"{done} denoised"]
        counts[0] += f" ({cut_short} cut short or damaged)" * bool(cut_short)
        texts: dict[Status, str] = {
            "kept": "kept (already there; give --overwrite)",
            "outdated": "kept though the input is newer (give --overwrite)",
            "failed": "failed",
            "not done": "not done",
        }
        counts += [f"{self.count(s)} {text}" for s, text in texts.items() if self.count(s)]
        heard = sum(outcome.seconds for outcome in self.outcomes)
        speed = heard / max(self.seconds, 1e-9)
        times = f"{speed:.1f}" if speed < 10 else f"{speed:.0f}"
        took = f"{heard:.0f} s of audio in {self.seconds:.1f} s ({times} x real time)"
        return ", ".join(counts) + (f": {took}" if done else "")

    def record(self) -> dict[str, Any]:
        """The same for programs, of what JSON holds."""
        files = [
            dataclasses.asdict(o) | {"source": str(o.source), "target": str(o.target)}
            for o in self.outcomes
        ]
        return {"files": files, "unlisted": self.unlisted, "seconds": round(self.seconds, 3)}


def find_pairs(
    sources: Sequence[str | os.PathLike], target: str | os.PathLike, preview: bool = False
) -> Found:
    """What to read and what to write.

    Args:
        sources: files, and folders, which are searched recursively.
        target: the file or folder to write. A folder, or a name that ends with a slash, takes files
            under their own names, and keeps the tree of a folder. So does the target of several
            sources, in which each folder gets one of its name.
        preview: write to ``NAME.preview.SUFFIX``, so that no preview is taken for the whole.

    Returns:
        The pairs, by name.

    Raises:
        ValueError: there is nothing to read, a name is empty, an input would be written over, or a
            folder or several inputs have one file as target.
    """
    if not all(map(os.fspath, (*sources, target))):
        raise ValueError("INPUT or OUTPUT is empty: give a name, or . for the current folder")
    inside = len(sources) > 1 or os.fspath(target).endswith(("/", os.sep))
    target = Path(target)
    if (inside or Path(sources[0]).is_dir()) and target.exists() and not target.is_dir():
        raise ValueError(f"{target}: is a file, and all that is to be written needs a folder")
    pairs: list[tuple[Path, Path]] = []
    unlisted: list[str] = []
    missing: list[str] = []
    for source in map(Path, sources):
        if source.is_dir():
            below = target / source.name if len(sources) > 1 else target
            note = lambda error: unlisted.append(f"{error.filename}: {error.strerror}")
            found = audio.find_audio(source, note)
            pairs += [(path, below / path.relative_to(source)) for path in found]
            missing += [f"{source}: no audio files in this folder"] * (not found and not unlisted)
        elif source.exists():
            pairs.append((source, target / source.name if inside or target.is_dir() else target))
        else:
            missing.append(f"{source}: no such file or folder")
    if not pairs and not unlisted:
        raise ValueError("; ".join(missing))
    if preview:
        pairs = [(path, _named(to.parent, to.stem, f".preview{to.suffix}")) for path, to in pairs]
    inputs = {_real(path) for path, _ in pairs}
    for _, path in pairs:
        if _real(path) in inputs:
            raise ValueError(f"{path}: is also an input; choose another OUTPUT")
    for source in map(Path, sources):
        if source.is_dir() and _real(target).is_relative_to(_real(source)):
            raise ValueError(
                f"{target}: lies inside {source}, whose files are read; choose another"
            )
    return Found(pairs, missing + unlisted)


def report_path(target: str) -> Path:
    """Where a page on the outputs lies: inside a folder, beside a file.

    Args:
        target: as of ``find_pairs``, written.
    """
    path = Path(target)
    place = (path, path.name) if path.is_dir() else (path.parent, path.stem)
    return _named(*place, ".report.html")


def _named(folder: Path, stem: str, ending: str) -> Path:
    """A file in a folder, its name cut where file systems take no longer one."""
    most = _LONGEST_NAME - len(os.fsencode(ending))
    return folder / (os.fsencode(stem)[:most].decode(errors="ignore") + ending)


def _real(path: Path) -> Path:
    """The path without links, as far as they lead anywhere."""
    return Path(os.path.realpath(path))


def denoise_files(found: Found, model: Model, settings: Settings) -> Summary:
    """Denoise files one after another; one that fails does not stop the others.

    A file to write that is already there is kept, whatever it holds: it came from an earlier run,
    which gives a file its name only once it is whole, or from somebody else.

    Args:
        found: files to read, and to write. Of several that would be written to one file, through
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
    start = time.perf_counter()
    outcomes = [Outcome(*pair) for pair in found.pairs]
    stopped: KeyboardInterrupt | SystemExit | None = None
    written: dict[tuple[int, int], Path] = {}
    try:
        total = sum(_seconds(outcome, settings) for outcome in outcomes)
        disable = True if settings.quiet else None  # None: unless it is a terminal
        with tqdm(total=total, bar_format=_BAR, disable=disable) as bar:
            for number, outcome in enumerate(outcomes, 1):
                bar.set_description(f"{number}/{len(outcomes)} {outcome.source.name}")
                try:
                    _denoise(outcome, model, settings, written, bar)
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    named = str(outcome.source) in str(error)
                    outcome.status = "failed"
                    outcome.messages = [str(error) if named else f"{outcome.source}: {error}"]
    except (KeyboardInterrupt, SystemExit) as stop:
        stopped = stop
    return Summary(outcomes, found.failed, time.perf_counter() - start, stopped)


def _denoise(
    outcome: Outcome,
    model: Model,
    settings: Settings,
    written: dict[tuple[int, int], Path],
    bar: "tqdm[Any]",
) -> None:
    source, target = outcome.source, outcome.target
    if target.exists() and (same := written.get(_identity(target))):
        raise ValueError(f"{source}: its output is that of {same}, too: {target}")
    if _is_kept(target, settings):
        outcome.status = "kept"
        if source.stat().st_mtime > target.stat().st_mtime:
            outcome.status = "outdated"
            outcome.messages = [f"{target}: kept, though {source} is newer; give --overwrite"]
    else:

        def cut_short(message: str) -> None:
            outcome.cut_short = True
            outcome.messages.append(message)

        outcome.seconds = denoise_file(
            source,
            target,
            model,
            dry_wet=settings.dry_wet,
            max_attenuation_db=settings.max_attenuation_db,
            partial=settings.partial,
            # Headers may say less than there is, and tqdm complains of more than all.
            progress=lambda seconds: bar.update(max(0.0, min(seconds, bar.total - bar.n))),
            cut_short=cut_short,
            note=outcome.messages.append,
            limit=PREVIEW_SECONDS if settings.preview else math.inf,
        )
        outcome.status = "denoised"
    written[_identity(target)] = source


def _is_kept(target: Path, settings: Settings) -> bool:
    return target.is_file() and not settings.overwrite and not settings.preview


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino


class Piped(NamedTuple):
    """Files in place of streams.

    Attributes:
        sources: paths to read.
        target: path to write.
        names: what stands in a message for the path of such a file.
        to_stdout: whether the output goes to standard output.
    """

    sources: list[str]
    target: str
    names: dict[str, str]
    to_stdout: bool

    def shown(self, message: str) -> str:
        """A message without the paths of files in place of streams."""
        for path, name in self.names.items():
            message = message.replace(path, name)
        return message


@contextlib.contextmanager
def piped(sources: Sequence[str], target: str) -> Iterator[Piped]:
    """Files for inputs and an output that are streams.

    Streams are ``-``, ``/dev/stdin`` and ``/dev/stdout``, ``/dev/fd/N``, named pipes and devices.
    What comes in is kept in a temporary file until it ends, and what goes out is sent only once it
    is whole, so that memory stays bounded and nothing broken is passed on. It is in the format that
    the suffix of a named pipe stands for, else WAV.

    Args:
        sources: paths, or ``-`` for standard input.
        target: a path, or ``-`` for standard output.

    Yields:
        The paths to read and to write.

    Raises:
        ValueError: a folder or several inputs are to be sent to a stream, a stream is to be written
            into a folder, or one is closed or a terminal.
    """
    goes_out = _is_stream(target)
    into_folder = len(sources) > 1 or target.endswith(("/", os.sep)) or Path(target).is_dir()
    nameless = [source for source in sources if _is_stream(source)]
    if nameless and into_folder:
        raise ValueError(f"{target}: is a folder, but {nameless[0]} has no name: give a file")
    if goes_out and (len(sources) > 1 or Path(sources[0]).is_dir()):
        what = f"{sources[0]}: is a folder" if len(sources) == 1 else f"{len(sources)} inputs"
        raise ValueError(f"{what}, standard output takes one file; give a folder")
    with contextlib.ExitStack() as stack:
        # Opened before any work, so that what cannot be opened is said at once.
        stream = stack.enter_context(_opened(target, "wb")) if goes_out else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="blsh-"))
        names: dict[str, str] = {}
        read = []
        for number, source in enumerate(sources):
            if not _is_stream(source):
                read.append(source)
                continue
            path = Path(
                folder, str(number), "standard input" if source == PIPE else Path(source).name
            )
            path.parent.mkdir()
            with _opened(source, "rb") as incoming, path.open("wb") as file:
                shutil.copyfileobj(incoming, file)
            names[str(path)] = "standard input" if source == PIPE else source
            read.append(str(path))
        write = target
        if goes_out:
            write = str(Path(folder, "out").with_suffix(_suffix(target)))
            names[write] = "standard output" if target == PIPE else target
        yield Piped(read, write, names, target == PIPE or _descriptor(target) == 1)
        if stream is not None and Path(write).exists():
            with open(write, "rb") as file:
                shutil.copyfileobj(file, stream)
            stream.flush()


def _descriptor(name: str) -> int | None:
    """The number of an open file that a name stands for, if it does."""
    for start in _DESCRIPTORS:
        if name.startswith(start) and name[len(start) :].isdigit():
            return int(name[len(start) :])
    return _STANDARD.get(name)


def _is_stream(name: str) -> bool:
    if name == PIPE or _descriptor(name) is not None:
        return True
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextlib.contextmanager
def _opened(name: str, mode: Literal["rb", "wb"]) -> Iterator[Any]:
    """A stream, opened."""
    number = _descriptor(name)
    number = ("rb", "wb").index(mode) if name == PIPE else number
    if number in (0, 1):
        standard, what = ((sys.stdin, "input"), (sys.stdout, "output"))[number]
        if standard is None:
            raise ValueError(f"standard {what} is closed: give a file")
        if standard.isatty():
            raise ValueError(f"standard {what} is a terminal: give a file, or a pipe to it")
        yield standard.buffer
        return
    with open(name if number is None else number, mode, closefd=number is None) as file:
        yield file


def _suffix(target: str) -> str:
    """The suffix of a file that is sent to a stream."""
    try:
        audio.suffix_kind(Path(target))
    except audio.AudioError:
        return ".wav"
    return Path(target).suffix


def _seconds(outcome: Outcome, settings: Settings) -> float:
    """Seconds to denoise, for the progress bar; 0 if that will fail, which is reported then."""
    try:
        if _is_kept(outcome.target, settings):
            return 0.0
        seconds = audio.seconds(outcome.source)
    except OSError:
        return 0.0
    return min(seconds, PREVIEW_SECONDS) if settings.preview else seconds

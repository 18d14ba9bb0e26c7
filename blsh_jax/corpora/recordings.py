"""What a corpus is: recordings, the corpus that lists them, and their signals in memory."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from tqdm import tqdm

from blsh_jax.corpora import audio

Layout = Literal["timit", "librispeech", "duan", "demand", "folder", "synthetic"]

# Half a step of 16-bit audio: a signal that never leaves it is digital silence.
SILENCE = 2.0**-16
_SHOWN = 5
_LEAST_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Recording:
    """One utterance or one noise.

    Attributes:
        key: unique within its corpus, the same wherever the corpus is stored.
        path: the file; None if the signal was made, not recorded.
        speaker: who speaks, None if unknown or noise.
        sex: of the speaker, ``F`` or ``M``, None if unknown.
        name: what kind of noise it is, None for speech.
    """

    key: str
    path: Path | None = None
    speaker: str | None = None
    sex: Literal["F", "M"] | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Recordings that belong together.

    Attributes:
        layout: which layout the folder was recognised by.
        licence: the terms of the recordings as their publisher states them, None if unknown.
        recordings: sorted by key.
    """

    layout: Layout
    licence: str | None
    recordings: tuple[Recording, ...]

    def __len__(self) -> int:
        return len(self.recordings)

    def subset(self, recordings: Iterable[Recording]) -> "Corpus":
        """The corpus of some of its recordings."""
        return dataclasses.replace(self, recordings=tuple(recordings))


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Recordings with their signals.

    Attributes:
        signals: one float32 (n,) array per recording, all at one sample rate.
        recordings: in the order of ``signals``.
        skipped: (file or key, reason) of everything that was left out.
    """

    signals: list[np.ndarray]
    recordings: tuple[Recording, ...]
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.signals)

    def some(self, indices: Sequence[int] | np.ndarray) -> "Loaded":
        """The recordings at ``indices`` alone, in that order."""
        recordings = tuple(self.recordings[int(i)] for i in indices)
        return Loaded([self.signals[int(i)] for i in indices], recordings)


def unique_keys(recordings: Iterable[Recording]) -> tuple[Recording, ...]:
    """Recordings sorted by key; of several with one key, the first path in order stays."""
    kept: dict[str, Recording] = {}
    for recording in sorted(recordings, key=lambda r: (r.key, str(r.path))):
        kept.setdefault(recording.key, recording)
    return tuple(kept.values())


def load(corpus: Corpus, sample_rate: int) -> Loaded:
    """Reads every recording of a corpus as mono at one rate; what is unusable is left out, named.

    Args:
        corpus: what to read.
        sample_rate: in Hz; files at other rates are resampled.

    Returns:
        The signals, and in ``skipped`` each damaged, silent or too short file with the reason;
        pass it to ``report``.

    Raises:
        ValueError: no recording can be used.
    """
    signals, kept, skipped = [], [], []
    progress = tqdm(corpus.recordings, "reading", unit="file", delay=2, disable=None, leave=False)
    for recording in progress:
        try:
            signal = _usable(recording, sample_rate)
        except audio.AudioError as error:
            skipped.append((str(recording.path), str(error).removeprefix(f"{recording.path}: ")))
        else:
            signals.append(signal)
            kept.append(recording)
    if not signals:
        first = f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise ValueError(f"none of the {len(corpus)} recordings can be used{first}")
    return Loaded(signals, tuple(kept), skipped)


def _usable(recording: Recording, sample_rate: int) -> np.ndarray:
    if recording.path is None:
        raise audio.AudioError(f"{recording.key}: has no file, it was made in memory")
    signal, _ = audio.read(recording.path, sample_rate)
    if len(signal) < _LEAST_SECONDS * sample_rate:
        seconds = len(signal) / sample_rate
        raise audio.AudioError(f"too short ({seconds:.3f} s, {_LEAST_SECONDS} s are needed)")
    if np.abs(signal).max() <= SILENCE:
        raise audio.AudioError("silent")
    return signal


class _HasSkipped(Protocol):
    @property
    def skipped(self) -> Sequence[tuple[str, str]]: ...


def report(result: _HasSkipped) -> None:
    """Prints once what a loading or mixing left out: how many, and the first few by name.

    Args:
        result: what ``load`` or ``make_mixtures`` returned.
    """
    skipped = result.skipped
    if not skipped:
        return
    lines = [f"{name}: {reason}" for name, reason in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"and {len(skipped) - _SHOWN} more")
    print(f"warning: left out {len(skipped)}:", *lines, sep="\n  ", file=sys.stderr)

"""Listing a folder: which corpus is it, and what does it hold?

A layout is recognised only if every file lies, or is named, as it says:

    timit         TRAIN|TEST/DR1..DR8/FCJF0/SA1.WAV, in whatever case a copy has it
    librispeech   <subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
    duan          one file for each of some of the ten noises
    demand        <environment>/ch01.wav to ch16.wav
"""

import collections
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from blsh_jax.corpora import audio
from blsh_jax.corpora.recordings import Corpus, Layout, Recording, unique_keys

Recognise = Callable[[Path, Sequence[Path]], list[Recording]]  # none if the layout is another

_LICENCES: Mapping[Layout, str] = {
    "timit": "Linguistic Data Consortium, LDC93S1 (the user's own copy; its sample CC BY-NC-SA)",
    "librispeech": "CC BY 4.0",
    "demand": "CC BY-SA 3.0",
}
_TIMIT = re.compile(r"DR[1-8]/(([FM])[A-Z]{3}[0-9])/([^./]*)[^/]*")
_LIBRISPEECH = re.compile(r"(\d+)/(\d+)/\1-\2-\d+\.[^./]*")
_SPEAKERS = "SPEAKERS.TXT"
_DUAN = {
    *("birds", "casino", "cicadas", "computerkeyboard", "eatingchips"),
    *("frogs", "jungle", "machineguns", "motorcycles", "ocean"),
}
_DEMAND = re.compile(r"CH\d\d")


def list_speech(folder: str | os.PathLike) -> Corpus:
    """The utterances of a folder.

    TIMIT and LibriSpeech are recognised by their layout, from their root or any folder of theirs.
    In any other folder every audio file is an utterance, and its speaker is the folder that it
    lies in (unknown for files at the top).

    Args:
        folder: searched at any depth.

    Raises:
        ValueError: the folder is missing or holds no audio.
    """
    layouts: dict[Layout, Recognise] = {"timit": _timit, "librispeech": _librispeech}
    layouts["folder"] = lambda folder, paths: [
        Recording(key, path, path.parent.name if path.parent != folder else None)
        for key, path in _keys(folder, paths)
    ]
    return _list(folder, layouts, "speech: TIMIT, LibriSpeech or any folder of audio files")


def list_noise(folder: str | os.PathLike) -> Corpus:
    """The noises of a folder.

    Duan's noises are recognised by their names and DEMAND by its layout (its first channel alone
    is used). In any other folder every audio file is a noise of its own.

    Args:
        folder: searched at any depth.

    Raises:
        ValueError: the folder is missing or holds no audio.
    """
    layouts: dict[Layout, Recognise] = {"duan": _duan, "demand": _demand}
    layouts["folder"] = lambda folder, paths: [
        Recording(key, path, name=path.stem) for key, path in _keys(folder, paths)
    ]
    return _list(folder, layouts, "noise: Duan's noises, DEMAND or any folder of audio files")


def list_paths(paths: Sequence[str | os.PathLike]) -> Corpus:
    """Some files, and whatever is named like audio in some folders.

    Args:
        paths: files and folders, which are searched at any depth.

    Raises:
        ValueError: a path is missing, or a folder holds no audio.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        below = audio.find_audio(path) if path.is_dir() else [path]
        if not below:
            raise ValueError(f"{path}: no audio in it")
        found += below
    return Corpus("folder", None, unique_keys(Recording(str(path), path) for path in found))


def _list(folder: str | os.PathLike, layouts: Mapping[Layout, Recognise], expected: str) -> Corpus:
    """The corpus of a folder, by the first layout that fits; the last one always does."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give a folder of {expected}")
    paths = audio.find_audio(folder)
    if not paths:
        suffixes = ", ".join(sorted(audio.AUDIO_SUFFIXES))
        raise ValueError(f"{folder}: no audio in it ({suffixes}); give a folder of {expected}")
    found = ((layout, recognise(folder, paths)) for layout, recognise in layouts.items())
    layout, recordings = next((layout, made) for layout, made in found if made)
    return Corpus(layout, _LICENCES.get(layout), unique_keys(recordings))


def _matched(
    pattern: re.Pattern, paths: Sequence[Path], place: Callable[[Path], str]
) -> list[tuple[re.Match, Path]]:
    """Each path with the match of its place, or nothing if one of them has none."""
    found = [(match, path) for path in paths if (match := pattern.fullmatch(place(path)))]
    return found if len(found) == len(paths) else []


def _last_parts(path: Path) -> str:
    return "/".join(path.absolute().parts[-3:])


def _timit(folder: Path, paths: Sequence[Path]) -> list[Recording]:
    """An utterance is keyed by speaker and sentence: SA1 repeats for every speaker.

    Some copies hold ``SA1.WAV`` beside a converted ``SA1.WAV.wav``.
    """
    return [
        Recording(f"{match[1]}/{match[3]}", path, match[1], match[2])  # type: ignore[arg-type]
        for match, path in _matched(_TIMIT, paths, lambda path: _last_parts(path).upper())
    ]


def _librispeech(folder: Path, paths: Sequence[Path]) -> list[Recording]:
    found = _matched(_LIBRISPEECH, paths, _last_parts)
    sexes = _sexes(folder, paths[0]) if found else {}
    return [
        Recording(path.stem, path.absolute(), match[1], sexes.get(match[1]))  # type: ignore[arg-type]
        for match, path in found
    ]


def _sexes(folder: Path, utterance: Path) -> dict[str, str]:
    """Speaker to ``F`` or ``M``, by lines such as ``26 | M | train-clean-100 | 25.08 | name``.

    The table lies in the folder, above it (two levels), or beside or above the subset's folder;
    without one the sex stays unknown.
    """
    folder, subset = folder.absolute(), utterance.absolute().parents[2]
    for place in (folder, *folder.parents[:2], subset, subset.parent):
        for path in (place / _SPEAKERS, place / _SPEAKERS.lower()):
            if path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                rows = re.findall(r"^(\d+)\s*\|\s*([FM])\s*\|", text, re.MULTILINE | re.IGNORECASE)
                return {speaker: sex.upper() for speaker, sex in rows}
    return {}


def _duan(folder: Path, paths: Sequence[Path]) -> list[Recording]:
    names = [re.sub(r"[^a-z]", "", path.stem.lower()) for path in paths]
    if not set(names) <= _DUAN or len(set(names)) < len(names):
        return []
    return [Recording(name, path, name=name) for name, path in zip(names, paths, strict=True)]


def _demand(folder: Path, paths: Sequence[Path]) -> list[Recording]:
    """The first channel of each environment.

    The sixteen channels are one scene heard by microphones centimetres apart, so the others would
    add near copies.
    """
    found = _matched(_DEMAND, paths, lambda path: path.stem.upper())
    first = [(path.absolute().parent.name, path) for match, path in found if match[0] == "CH01"]
    return [Recording(name, path, name=name) for name, path in first]


def _keys(folder: Path, paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each path below the folder as a key, with its suffix only where that is all that differs."""
    stems = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    counts = collections.Counter(stems)
    return [
        (stem if counts[stem] == 1 else path.relative_to(folder).as_posix(), path)
        for stem, path in zip(stems, paths, strict=True)
    ]

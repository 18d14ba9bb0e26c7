"""Listing a folder: which corpus is it, and what does it hold?"""

import collections
import os
from collections.abc import Sequence
from pathlib import Path

from blsh_jax.corpora import audio, librispeech, noises, timit
from blsh_jax.corpora.recordings import Corpus, Recording, unique_keys


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
    folder, paths = _find(folder, "speech: TIMIT, LibriSpeech or any folder of audio files")
    if found := timit.recognise(folder, paths):
        return Corpus("timit", timit.LICENCE, unique_keys(found))
    if found := librispeech.recognise(folder, paths):
        return Corpus("librispeech", librispeech.LICENCE, unique_keys(found))
    utterances = [
        Recording(key, path, path.parent.name if path.parent != folder else None)
        for key, path in _keys(folder, paths)
    ]
    return Corpus("folder", None, unique_keys(utterances))


def list_noise(folder: str | os.PathLike) -> Corpus:
    """The noises of a folder.

    Duan's noises are recognised by their names and DEMAND by its layout (its first channel alone
    is used). In any other folder every audio file is a noise of its own.

    Args:
        folder: searched at any depth.

    Raises:
        ValueError: the folder is missing or holds no audio.
    """
    folder, paths = _find(folder, "noise: Duan's noises, DEMAND or any folder of audio files")
    if found := noises.recognise_duan(folder, paths):
        return Corpus("duan", None, unique_keys(found))
    if found := noises.recognise_demand(folder, paths):
        return Corpus("demand", noises.DEMAND_LICENCE, unique_keys(found))
    found = [Recording(key, path, name=path.stem) for key, path in _keys(folder, paths)]
    return Corpus("folder", None, unique_keys(found))


def _find(folder: str | os.PathLike, expected: str) -> tuple[Path, list[Path]]:
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give a folder of {expected}")
    paths = audio.find_audio(folder)
    if not paths:
        suffixes = ", ".join(sorted(audio.AUDIO_SUFFIXES))
        raise ValueError(f"{folder}: no audio in it ({suffixes}); give a folder of {expected}")
    return folder, paths


def _keys(folder: Path, paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each path below the folder as a key, with its suffix only where that is all that differs."""
    stems = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    counts = collections.Counter(stems)
    return [
        (stem if counts[stem] == 1 else path.relative_to(folder).as_posix(), path)
        for stem, path in zip(stems, paths, strict=True)
    ]

"""LibriSpeech: ``<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac``."""

import re
from collections.abc import Sequence
from pathlib import Path

from blsh_jax.corpora.recordings import Recording

LICENCE = "CC BY 4.0"

_UTTERANCE = re.compile(r"(\d+)-(\d+)-\d+")
_TABLE = "SPEAKERS.TXT"


def recognise(folder: Path, paths: Sequence[Path]) -> list[Recording] | None:
    """The recordings, or None if any file lies elsewhere than LibriSpeech would have it.

    The sex of the speakers comes from ``SPEAKERS.TXT`` in the folder, above it (two levels), or
    beside or above the subset's folder; without that file it stays unknown.
    """
    if not all(_fits(path) for path in paths):
        return None
    sexes = _sexes(folder, paths[0])
    return [
        Recording(path.stem, path, path.parts[-3], sexes.get(path.parts[-3]))  # type: ignore[arg-type]
        for path in (path.absolute() for path in paths)
    ]


def _fits(path: Path) -> bool:
    match = _UTTERANCE.fullmatch(path.stem)
    return match is not None and path.absolute().parts[-3:-1] == match.groups()


def _sexes(folder: Path, utterance: Path) -> dict[str, str]:
    """Speaker to ``F`` or ``M``, from the nearest table."""
    folder, subset = folder.absolute(), utterance.absolute().parents[2]
    for place in (folder, *folder.parents[:2], subset, subset.parent):
        for path in (place / _TABLE, place / _TABLE.lower()):
            if path.is_file():
                return _read_table(path)
    return {}


def _read_table(path: Path) -> dict[str, str]:
    """Reads lines such as ``26 | M | train-clean-100 | 25.08 | name``; ``;`` starts a comment."""
    rows = (
        [field.strip() for field in line.split("|")]
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not line.startswith(";")
    )
    return {row[0]: row[1].upper() for row in rows if len(row) > 1 and row[1].upper() in ("F", "M")}

"""TIMIT: ``TRAIN|TEST/DR1..DR8/FCJF0/SA1.WAV``, in whatever case a copy has it."""

import re
from collections.abc import Sequence
from pathlib import Path

from blsh_jax.corpora.recordings import Recording

LICENCE = "Linguistic Data Consortium, LDC93S1 (the user's own copy; its sample CC BY-NC-SA)"

_REGION = re.compile(r"DR[1-8]")
_SPEAKER = re.compile(r"[FM][A-Z]{3}[0-9]")


def recognise(folder: Path, paths: Sequence[Path]) -> list[Recording] | None:
    """The recordings, or None if any file lies elsewhere than TIMIT would have it.

    An utterance is keyed by speaker and sentence: SA1 repeats for every speaker, and some copies
    hold ``SA1.WAV`` beside a converted ``SA1.WAV.wav``.
    """
    recordings = [_recording(path) for path in paths]
    return None if None in recordings else recordings  # type: ignore[return-value]


def _recording(path: Path) -> Recording | None:
    parts = [part.upper() for part in path.absolute().parts[-3:]]
    if len(parts) < 3 or not _REGION.fullmatch(parts[0]) or not _SPEAKER.fullmatch(parts[1]):
        return None
    speaker, sentence = parts[1], parts[2].split(".")[0]
    sex = "F" if speaker[0] == "F" else "M"
    return Recording(f"{speaker}/{sentence}", path, speaker, sex)  # type: ignore[arg-type]

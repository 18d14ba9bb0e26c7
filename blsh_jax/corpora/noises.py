"""Noise corpora: Duan's ten non-stationary noises, and DEMAND."""

import re
from collections.abc import Sequence
from pathlib import Path

from blsh_jax.corpora.recordings import Recording

DEMAND_LICENCE = "CC BY-SA 3.0"

DUAN_NAMES = (
    "birds",
    "casino",
    "cicadas",
    "computerkeyboard",
    "eatingchips",
    "frogs",
    "jungle",
    "machineguns",
    "motorcycles",
    "ocean",
)

_CHANNEL = re.compile(r"CH\d\d")


def recognise_duan(folder: Path, paths: Sequence[Path]) -> list[Recording] | None:
    """The noises, or None if any file is not named after one of the ten, or two after one."""
    names = [re.sub(r"[^a-z]", "", path.stem.lower()) for path in paths]
    if not set(names) <= set(DUAN_NAMES) or len(set(names)) < len(names):
        return None
    return [Recording(name, path, name=name) for name, path in zip(names, paths, strict=True)]


def recognise_demand(folder: Path, paths: Sequence[Path]) -> list[Recording] | None:
    """The first channel of each environment, or None if any file is not ``NAME/chNN.wav``.

    The sixteen channels are one scene heard by microphones centimetres apart, so the others would
    add near copies.
    """
    if not all(_CHANNEL.fullmatch(path.stem.upper()) for path in paths):
        return None
    first = [path for path in paths if path.stem.upper() == "CH01"]
    names = [path.absolute().parent.name for path in first]
    return [Recording(name, path, name=name) for name, path in zip(names, first, strict=True)]

"""Results kept by their configuration, so that a second call recomputes only what changed.

    cache = Cache("cache")
    rows = cache.record("scores", {"model": ..., "set": ...}, compute)

A result's file is named after the SHA-256 of everything that it depends on, the version of the
package included; it is written whole or not at all, so an interrupted run goes on where it was.
After changing code, start with an empty folder.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blsh_jax import __version__, models
from blsh_jax.config import to_dict
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import records
from blsh_jax.files import replacing
from blsh_jax.models import Model
from blsh_jax.robust.augmentation import AugmentedMixtures

Settings = Mapping[str, Any]


class Cache:
    """A folder of results.

    Attributes:
        folder: where they are; None keeps nothing.
        made: names of the results that had to be computed, in order.
    """

    def __init__(self, folder: str | os.PathLike | None):
        self.folder = None if folder is None else Path(folder)
        self.made: list[str] = []

    def record(self, kind: str, settings: Settings, make: Callable[[], Any]) -> Any:
        """Anything that JSON can hold."""
        path = self._path(kind, settings, ".json")
        if path is not None and path.is_file():
            return json.loads(path.read_text())
        value = self._made(kind, make)
        if path is not None:
            records.write_json(path, value)
        return value

    def arrays(
        self, kind: str, settings: Settings, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Named arrays."""
        path = self._path(kind, settings, ".npz")
        if path is not None and path.is_file():
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        value = self._made(kind, make)
        if path is not None:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **value)
        return value

    def model(self, settings: Settings, make: Callable[[], Model]) -> Model:
        """A model, without its frames."""
        path = self._path("model", settings, ".npz")
        if path is not None and path.is_file():
            return models.load(path)
        value = self._made("model", make).without_frames()
        if path is not None:
            models.save(value, path)
        return value

    def _made(self, kind: str, make: Callable[[], Any]) -> Any:
        value = make()
        self.made.append(kind)
        return value

    def _path(self, kind: str, settings: Settings, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{kind}-{digest(settings)[:24]}{suffix}"


def digest(settings: Settings) -> str:
    """SHA-256 of settings, the order of whose names does not matter."""
    text = json.dumps({"version": __version__} | dict(settings), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(mixtures: Mixtures | AugmentedMixtures) -> dict[str, Any]:
    """What makes a set of mixtures what it is, the samples of its recordings included."""
    content = hashlib.sha256()
    for loaded in (mixtures.speech, mixtures.noise):
        for recording, signal in zip(loaded.recordings, loaded.signals, strict=True):
            content.update(recording.key.encode())
            content.update(np.ascontiguousarray(signal).tobytes())
    names = ("seed", "part", "held_back", "snr_db")
    shared = {name: getattr(mixtures, name) for name in names}
    if isinstance(mixtures, AugmentedMixtures):
        shared["augmentation"] = to_dict(mixtures.config)
    else:
        content.update(repr(mixtures.pairs).encode())
    return shared | {"content": content.hexdigest()}

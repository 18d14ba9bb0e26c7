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

from blsh_jax import __version__, files, models
from blsh_jax.config import to_dict
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import records
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
        read = lambda path: json.loads(path.read_text())
        return self._kept(f"{kind}.json", settings, make, read, records.write_json)

    def arrays(
        self, kind: str, settings: Settings, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Named arrays."""
        return self._kept(f"{kind}.npz", settings, make, _read_arrays, files.write_arrays)

    def model(self, settings: Settings, make: Callable[[], Model]) -> Model:
        """A model, without its frames."""
        save = lambda path, model: models.save(model, path)
        bare = lambda: make().without_frames()
        return self._kept("model.npz", settings, bare, models.load, save)

    def _kept(
        self,
        name: str,
        settings: Settings,
        make: Callable[[], Any],
        read: Callable[[Path], Any],
        write: Callable[[Path, Any], None],
    ) -> Any:
        """What the file of these settings holds, or what is made, and written there."""
        kind, _, suffix = name.partition(".")
        path = self.folder and self.folder / f"{kind}-{digest(settings)[:24]}.{suffix}"
        if path is not None and path.is_file():
            return read(path)
        value = make()
        self.made.append(kind)
        if path is not None:
            write(path, value)
        return value


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


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

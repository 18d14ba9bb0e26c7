"""What is left when the Nth system call of a write fails, for every N: printed as JSON.

To be run with ``failing_calls.c`` loaded beforehand: python tests/write_failures.py FOLDER
"""

import ctypes
import errno
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import soundfile
from matplotlib.figure import Figure
from small_models import random_model

from blsh_jax import files, models
from blsh_jax.corpora import audio
from blsh_jax.evaluation import plots, records
from blsh_jax.export import write_c
from blsh_jax.paper.boosting import BitInfo
from blsh_jax.paper.codes import Hasher
from blsh_jax.training import checkpoint

OLD = b"what was there"
RATE = 16_000
AUDIO = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "DOUBLE"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "FLOAT"),
    "caf": ("CAF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "sph": ("NIST", "PCM_16"),
}
NOISE = np.clip(0.2 * np.random.default_rng(0).standard_normal((1, 30_007)), -1, 1)


def write_audio(path: Path, kind: str, subtype: str) -> None:
    with audio.writing(path, RATE, 1, subtype, kind) as file:
        for start in range(0, NOISE.shape[-1], 7000):
            file.write(NOISE[:, start : start + 7000])


def write_checkpoint(path: Path) -> None:
    hasher = Hasher(jnp.ones((2, 900)), jnp.ones(2), jnp.ones(2))
    infos = [BitInfo(*[float(bit)] * 7) for bit in range(2)]
    checkpoint.save(path, checkpoint.Checkpoint(hasher, infos, "float32"), {"key": [0, 1]})


def decoded(path: Path) -> bytes:
    """The samples: headers hold times and numbers drawn at random."""
    if path.read_bytes() == OLD:
        return OLD
    try:
        return soundfile.read(path)[0].tobytes()
    except (soundfile.LibsndfileError, ValueError):
        return b"damaged"


def swept(
    folder: Path, write: Callable[[Path], object], content: Callable[[Path], bytes], fail: Callable
) -> tuple[int, list[str]]:
    """Writes with every call failing in turn; how many calls there are, and what went wrong.

    A call fails by itself, where nothing was, or with all that follow, where something was. The
    last three flush the folder, close it, and unlock.
    """
    write(folder)
    new = {path.name: content(path) for path in folder.iterdir()}
    wrong, most = [], 0
    for lasting, before in ((False, {}), (True, dict.fromkeys(new, OLD))):
        for call in itertools.count():
            for path in folder.iterdir():
                path.unlink()
            for name, old in before.items():
                (folder / name).write_bytes(old)
            error = None
            fail(bytes(folder), call, errno.ENOSPC if lasting else errno.EIO, lasting)
            try:
                write(folder)
            except (audio.AudioError, OSError) as caught:
                error = caught
            seen = fail(b"", -1, 0, False)
            if call >= seen:  # nothing failed: there are no more calls
                break
            most = max(most, seen)
            here = {path.name: content(path) for path in folder.iterdir()}
            replaced = [name for name in here if here[name] == new.get(name)]
            bad = [name for name in here if here[name] not in (new.get(name), before.get(name))]
            what = f"call {call} of {seen}, lasting {lasting}: {error}: "
            if bad or before.keys() - here.keys():
                wrong.append(what + f"left {bad} of {sorted(here)}")
            if error is None and here != new:
                wrong.append(what + "done, and not written")
            if error is not None and not any(str(folder / name) in str(error) for name in new):
                wrong.append(what + "names no file")
            if error is not None and len(new) == 1 and replaced and call < seen - 3:
                wrong.append(what + "replaced by a write that failed")
    return most, wrong


def main(root: Path) -> None:
    fail = ctypes.CDLL(None).fail
    fail.argtypes = ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int
    model = random_model()
    figure = Figure((1, 1))
    as_bytes = Path.read_bytes
    cases = {
        f"x.{suffix}": (lambda path, way=way: write_audio(path, *way), decoded)
        for suffix, way in AUDIO.items()
    } | {
        "model.npz": (lambda path: models.save(model, path), as_bytes),
        "checkpoint.npz": (write_checkpoint, as_bytes),
        "record.json": (lambda path: records.write_json(path, {"results": [1.5]}), as_bytes),
        "figure.png": (lambda path: plots.save(figure, path), as_bytes),
        "n" * 255: (lambda path: files.write(path, b"long name"), as_bytes),
    }
    found = {}
    for name, (write, content) in cases.items():
        folder = root / name[:9]
        folder.mkdir()
        found[name] = swept(folder, lambda at, w=write, n=name: w(at / n), content, fail)
    folder = root / "c"
    folder.mkdir()
    found["C"] = swept(folder, lambda at: write_c(model, at), as_bytes, fail)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

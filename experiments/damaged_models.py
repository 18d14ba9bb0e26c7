"""Damaged model files and checkpoints, made by code: what ``experiments.fuzz`` and the tests read.

content = damaged_model(numpy.random.default_rng(0))    bytes of a model file, damaged at random
outcome = read_model(path)                              "refused" or "loaded"
"""

import copy
import functools
import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import config, models
from blsh_jax.denoising import stream
from blsh_jax.models import Model, ModelError
from blsh_jax.paper.boosting import BitInfo
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.separation import Dictionary
from blsh_jax.robust.bin_features import NUM_FEATURES
from blsh_jax.robust.ferns import Ferns
from blsh_jax.search.packing import num_words
from blsh_jax.training import checkpoint
from experiments.damaged_audio import flip

_BITS, _FRAMES, _FEATURES = 40, 12, 9
_FIT = config.FitConfig(num_bits=4, block_size=50)
# What a setting, a name or a number of a header may have become.
_VALUES: tuple[Any, ...] = (
    *(None, True, "", "12", "\ud800", [], {}, {"a": 1}, [[]], -1, 0, 1, 2, 3, 7, 0.5, 1e-30, 1e300),
    *(-0.0, float("nan"), float("inf"), 10**9, 2**30, 2**63, 10**400, 1_000_000, 64, 1024, 4096),
)
_TRACED: set[config.SeparationConfig] = set()
_DTYPES = ("<f8", "<f2", ">f4", "<i4", "<i8", "|b1", "|O", "<U9", "<c8", "|V4", "<M8", "|u1", "?")


def archive(members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of members by name, of which two may have the same."""
    content = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w", method) as file:
        warnings.simplefilter("ignore", UserWarning)
        for name, member in members:
            file.writestr(name, member)
    return content.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    """The members of a whole file by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def array_bytes(array: Any) -> bytes:
    """An array as .npy file; one of objects is pickled, as in a hostile file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def array_of(member: bytes) -> np.ndarray:
    """The array of an .npy file."""
    return np.load(io.BytesIO(member), allow_pickle=False)


@functools.cache
def whole_model() -> bytes:
    """A small model file, whole."""
    rng = np.random.default_rng(0)
    features = config.FeatureConfig("log_mel", 5, levels=2, floor_frames=4, voicing=2)
    presence = config.SpeechPresenceConfig(snr_weight_low=0.5)
    settings = config.SeparationConfig(features=features, speech_presence=presence)
    hasher = Hasher(*(jnp.asarray(rng.random(s), jnp.float32) for s in ((_BITS, 9), _BITS, _BITS)))
    words = rng.integers(0, 256, (_FRAMES, num_words(_BITS) + num_words(513)), np.uint32)
    codes, masks = np.split(words, [num_words(_BITS)], axis=1)
    masks[:, -1] = 1
    dictionary = Dictionary(hasher, jnp.asarray(codes & 0xFF), jnp.asarray(masks), 513)
    frames = rng.random((_FRAMES, 9)).astype(np.float16)
    stages = []
    for count, asked in ((2, NUM_FEATURES), (1, 2 * NUM_FEATURES)):
        questions = (rng.integers(0, top, (count, 3), np.uint8) for top in (asked, 255))
        tables = rng.integers(-999, 999, (count, 8), np.int16)
        stages.append(Ferns(*map(jnp.asarray, (*questions, tables))))
    learning = config.FernConfig(num_ferns=2, num_second_ferns=1, fern_bits=3)
    trained = config.TrainConfig(settings, ferns=learning)
    made = Model(trained, dictionary, {"speech": {"licence": "none"}}, frames, tuple(stages))
    return _written(lambda path: models.save(made, path))


@functools.cache
def whole_checkpoint() -> bytes:
    """A small checkpoint, whole."""
    rng = np.random.default_rng(0)
    hasher = Hasher(*(jnp.asarray(rng.random(s), jnp.float32) for s in ((3, _FEATURES), 3, 3)))
    infos = [BitInfo(0.2, 0.3, 0.2, 0.7, 0.0, 40, 0.1)] * 3
    content = checkpoint.Checkpoint(hasher, infos, "float32")
    return _written(lambda path: checkpoint.save(path, content, _description()))


def read_model(path: Path) -> str:
    """Load a model file; if that goes, trace what denoises with it, and write it again.

    Returns:
        ``refused`` or ``loaded``; all else is raised.
    """
    try:
        loaded = models.load(path)
    except ModelError as error:
        _check_message(path, error)
        return "refused"
    if loaded.separation not in _TRACED:  # of one shape, as it follows from the settings
        hop = jax.ShapeDtypeStruct((1, loaded.separation.stft.hop_length), jnp.float32)
        state = jax.eval_shape(lambda: stream.init(loaded))
        jax.eval_shape(stream.step, loaded, state, hop)
        _TRACED.add(loaded.separation)
    with tempfile.TemporaryDirectory() as folder:
        models.save(loaded, Path(folder) / "again.npz")
    return "loaded"


def load_checkpoint(path: Path) -> checkpoint.Checkpoint | None:
    """Load a checkpoint as the run of ``whole_checkpoint`` would."""
    return checkpoint.load(path, _description(), _FEATURES)


def read_checkpoint(path: Path) -> str:
    """Load a checkpoint.

    Returns:
        ``refused`` or ``loaded``; all else is raised.
    """
    try:
        loaded = load_checkpoint(path)
    except ModelError as error:
        _check_message(path, error)
        return "refused"
    assert loaded is not None and np.isfinite(loaded.hasher.projections).all()
    return "loaded"


def damaged_model(rng: np.random.Generator) -> bytes:
    """A model file, damaged at random."""
    return damaged(rng, whole_model())


def damaged_checkpoint(rng: np.random.Generator) -> bytes:
    """A checkpoint, damaged at random."""
    return damaged(rng, whole_checkpoint())


def damaged(rng: np.random.Generator, whole: bytes) -> bytes:
    """A file with one kind of damage: to its bytes, its directory, its arrays or its settings."""
    kinds = (flip, _cut, _overwrite, _direct, _shuffle, _describe, _count, _set, _set)
    return kinds[rng.integers(len(kinds))](rng, whole)


def _cut(rng: np.random.Generator, whole: bytes) -> bytes:
    start, end = sorted(rng.integers(0, len(whole) + 1, 2))
    kept = whole[:end], whole[start:], whole[:start] + whole[end:], whole + whole[start:end]
    return kept[rng.integers(4)]


def _overwrite(rng: np.random.Generator, whole: bytes) -> bytes:
    size = int(rng.integers(1, 64))
    start = int(rng.integers(0, len(whole) - size))
    filling = (bytes(size), b"\xff" * size, rng.bytes(size))[rng.integers(3)]
    return whole[:start] + filling + whole[start + size :]


def _direct(rng: np.random.Generator, whole: bytes) -> bytes:
    """Damage to the directory at the end, and to the headers that stand before the members."""
    content = bytearray(whole)
    starts = [i for i in range(len(whole) - 4) if whole[i : i + 2] == b"PK"]
    for _ in range(rng.integers(1, 4)):
        start = starts[rng.integers(len(starts))] + int(rng.integers(4, 50))
        value = (0, 0xFF, 0x7F, 1, 0x80, int(rng.integers(256)))[rng.integers(6)]
        for place in range(start, min(start + int(rng.integers(1, 9)), len(content))):
            content[place] = value
    return bytes(content)


def _shuffle(rng: np.random.Generator, whole: bytes) -> bytes:
    """Members missing, twice, renamed, in each other's place, or compressed otherwise."""
    kept = list(members(whole).items())
    place, other = rng.integers(0, len(kept), 2)
    name, member = kept[place]
    match rng.integers(5):
        case 0:
            del kept[place]
        case 1:
            kept.append((name, kept[other][1]))
        case 2:
            kept[place] = (("x.npy", name[:-4], "../" + name, "é" + name)[rng.integers(4)], member)
        case 3:
            kept[place] = (name, kept[other][1])
        case 4:
            kept[place] = (name, member[: rng.integers(len(member))])
    methods = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
    return archive(kept, methods[rng.choice(4, p=(0.45, 0.45, 0.05, 0.05))])


def _describe(rng: np.random.Generator, whole: bytes) -> bytes:
    """What an .npy header says of its array, while the array stays."""
    kept = members(whole)
    name = list(kept)[rng.integers(len(kept))]
    member = bytearray(kept[name])
    end = member.index(b"\n")
    if rng.random() < 0.5:
        text = member[10:end].decode()
        old = text[text.index("(") : text.index(")") + 1]
        sizes = [str(rng.choice([0, 1, 12, 40, 10**6, 10**12, -1])) for _ in range(rng.integers(4))]
        new = text.replace(old, f"({', '.join(sizes)},)")
        if rng.random() < 0.5:
            new = text.replace(text[11:14], _DTYPES[rng.integers(len(_DTYPES))])
        member[10:end] = new.encode()[: end - 10].ljust(end - 10)
    else:
        for place in rng.integers(0, end, rng.integers(1, 4)):
            member[place] = rng.integers(256)
    return archive((kept | {name: bytes(member)}).items())


def _count(rng: np.random.Generator, whole: bytes) -> bytes:
    """An array with other numbers, of another type, or of another shape."""
    kept = members(whole)
    name = [name for name in kept if name != "header.npy"][rng.integers(len(kept) - 1)]
    array = array_of(kept[name]).copy()
    match rng.integers(4):
        case 0:
            is_float = array.dtype.kind == "f"
            values = (np.nan, np.inf, -np.inf, 1e30) if is_float else (0, np.iinfo(array.dtype).max)
            with np.errstate(over="ignore"):
                array.flat[rng.integers(array.size)] = values[rng.integers(len(values))]
        case 1:
            array = array.astype(("<f8", "<f2", ">f4", "<i8", "?", "O", "<c8")[rng.integers(7)])
        case 2:
            array = (array[:-1], array[..., :0], array.T, array[None], array.ravel())[
                rng.integers(5)
            ]
        case 3:
            array = np.asfortranarray(array)
    return archive((kept | {name: array_bytes(array)}).items())


def _set(rng: np.random.Generator, whole: bytes) -> bytes:
    """A header with another value somewhere, without one, with one more, or none of JSON."""
    kept = members(whole)
    header = json.loads(str(array_of(kept["header.npy"])))
    where = list(_places(header))
    inside, name = where[rng.integers(len(where))]
    value = copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])
    if rng.random() < 0.1:
        del inside[name]
    else:
        inside[name if rng.random() < 0.9 else "colour"] = value
    text = json.dumps(header)
    if rng.random() < 0.05:
        text = (text[:-9], "[" * 100_000, "\0", "9" * 5000, '{"a":' * 50_000)[rng.integers(5)]
    return archive((kept | {"header.npy": array_bytes(np.array(text))}).items())


def _places(values: Mapping[str, Any]) -> Iterable[tuple[Any, str]]:
    """Every value of nested objects: the object that it is in, and its name there."""
    for name, value in values.items():
        yield values, name
        if isinstance(value, dict):
            yield from _places(value)


def _description() -> dict[str, Any]:
    return checkpoint.describe(
        np.zeros((100, _FEATURES), np.float32), None, _FIT, jax.random.key(0)
    )


def _check_message(path: Path, error: Exception) -> None:
    assert str(path) in str(error) and len(str(error)) < 2000, error


def _written(write: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.npz"
        write(path)
        return path.read_bytes()

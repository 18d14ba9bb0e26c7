"""Models for other runtimes: C for small devices, StableHLO for whatever runs that.

Letters: L bits, D features, N dictionary frames, F bins, W words.
"""

import dataclasses
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import files
from blsh_jax._extras import extra
from blsh_jax._version import __version__
from blsh_jax.config import StftConfig
from blsh_jax.denoising import stream
from blsh_jax.models.model import Model
from blsh_jax.paper import spectra
from blsh_jax.robust import bin_features, ferns, speech_presence, voicing
from blsh_jax.robust import features as robust_features
from blsh_jax.robust import mask_stage as stage
from blsh_jax.search import native

_C_SOURCES = ("blsh.h", "blsh.c", "example.c")
_PLATFORMS = ("cpu", "cuda", "tpu")


def shrink(model: Model, num_bits: int | None = None, num_frames: int | None = None) -> Model:
    """A smaller model: the first bits of the codes, evenly chosen frames of the dictionary.

    Args:
        model: what to make smaller.
        num_bits: bits to keep; all if not given.
        num_frames: dictionary frames to keep; all if not given.

    Returns:
        The model, with the ferns as they are, and without the frames that only comparisons need.

    Raises:
        ValueError: the model has fewer bits or frames.
    """
    dictionary = model.dictionary
    if num_bits is not None:
        dictionary = dictionary.prefix(num_bits)
    if num_frames is not None:
        least, available = model.separation.num_neighbors, dictionary.num_frames
        if not least <= num_frames <= available:
            raise ValueError(f"num_frames is {num_frames}: give {least} to {available}")
        chosen = jnp.asarray(np.arange(num_frames) * available // num_frames)
        kept = dictionary.codes[chosen], dictionary.masks[chosen]
        fewer = dataclasses.replace(dictionary, codes=kept[0], masks=kept[1], tiles=None)
        dictionary = fewer.prepare()
    return dataclasses.replace(model, dictionary=dictionary, frames=None)


def write_c(model: Model, folder: Path) -> list[Path]:
    """Write a model as C: tables, and the code that uses them.

    Devices hear live sound, so a second stage of ferns, which looks ahead, is left out.

    Args:
        model: any model whose window is a power of two.
        folder: where to write; made if missing.

    Returns:
        The files: ``blsh_sizes.h`` and ``blsh_model.h`` (made from the model), ``blsh.h``,
        ``blsh.c`` (the same for all models) and ``example.c``.

    Raises:
        ValueError: the window is no power of two.
    """
    window = model.separation.stft.window_length
    if window & (window - 1):
        raise ValueError(f"window_length is {window}: the C code transforms powers of two only")
    model = model.without_look_ahead()
    texts = {"blsh_sizes.h": _sizes(model), "blsh_model.h": "".join(_tables(model))}
    sources = resources.files("blsh_jax.export") / "c"
    texts |= {name: (sources / name).read_text() for name in _C_SOURCES}
    return [_write(folder / name, text.encode()) for name, text in texts.items()]


def write_stablehlo(model: Model, folder: Path) -> list[Path]:
    """Write the step of the stream as StableHLO, with the model inside, without looking ahead.

    The step takes the arrays of the state, which all start as zeros, and a hop (1, hop); it returns
    the next state's arrays and the denoised hop, ``stream.latency`` samples later.

    Args:
        model: any model.
        folder: where to write; made if missing.

    Returns:
        The files: ``blsh_step.jax_export``, which ``jax.export.deserialize`` reads (a build
        product: keep the model file, export anew for later versions of JAX); ``blsh_step.mlir``,
        portable StableHLO bytecode for other runtimes; ``blsh_step.json``, the rate, the latency,
        and names, shapes and types of the arguments: those of the state by their path in it, such
        as ``mask.bands``.

    Raises:
        MissingExtraError: a package is missing.
    """
    with extra("export"):
        import flatbuffers  # noqa: F401  # jax.export writes with it
    stft, model = model.separation.stft, model.without_frames().without_look_ahead()
    hop = jax.ShapeDtypeStruct((1, stft.hop_length), jnp.float32)
    paths, structure = jax.tree.flatten_with_path(jax.eval_shape(lambda: stream.init(model)))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    shapes = [*(shape for _, shape in paths), hop]

    def step(*arrays: Array) -> tuple[Array, ...]:
        state = jax.tree.unflatten(structure, arrays[:-1])
        state, speech = stream.step(model, state, arrays[-1])
        return (*jax.tree.leaves(state), speech)

    with native.off():  # what other runtimes do not have
        exported = jax.export.export(jax.jit(step), platforms=_PLATFORMS)(*shapes)
    facts = {
        "library": __version__,
        "sample_rate": stft.sample_rate,
        "latency_samples": stream.latency(model),
        "platforms": _PLATFORMS,
        "arguments": [
            {"name": name, "shape": shape.shape, "dtype": str(shape.dtype)}
            for name, shape in zip([*names, "hop"], shapes, strict=True)
        ],
    }
    return [
        _write(folder / "blsh_step.jax_export", bytes(exported.serialize())),
        _write(folder / "blsh_step.mlir", exported.mlir_module_serialized),
        _write(folder / "blsh_step.json", (json.dumps(facts, indent=1) + "\n").encode()),
    ]


def _write(path: Path, content: bytes) -> Path:
    files.write(path, content)
    return path


def _sizes(model: Model) -> str:
    """The header of sizes, which users of the C code need as well."""
    config, (bits, features) = model.separation, model.hasher.projections.shape
    spectrum = features - config.features.levels - config.features.voicing
    names = {
        "SAMPLE_RATE": config.stft.sample_rate,
        "WINDOW": config.stft.window_length,
        "HOP": config.stft.hop_length,
        "BINS": config.stft.num_bins,
        "CONTEXT": config.features.context,
        "BANDS": spectrum // config.features.context,
        "SPECTRUM": spectrum,
        "LEVELS": config.features.levels,
        "FLOOR_FRAMES": config.features.floor_frames,
        "VOICING": config.features.voicing,
        "FEATURES": features,
        "MEL": int(config.features.kind != "magnitude"),
        "LOG_MEL": int(config.features.kind == "log_mel"),
        "BITS": bits,
        "WORDS": model.dictionary.codes.shape[1],
        "FRAMES": model.dictionary.num_frames,
        "MASK_WORDS": model.dictionary.masks.shape[1],
        "NEIGHBORS": config.num_neighbors,
        "TRACKING": int(_tracks_noise(model)),
        "DECISIVE": int(config.decisiveness > 0),
        "FERNS": 0,
    }
    if model.ferns:
        number, questions = model.ferns[0].features.shape
        names |= {"FERNS": number, "FERN_BITS": questions}
        names |= {"BIN_FEATURES": bin_features.NUM_FEATURES}
    return f"/* Made by blsh_jax {__version__}. */\n{_defines(names)}"


def _tracks_noise(model: Model) -> bool:
    """Speech presence is the mask stage, or a feature of ferns."""
    return model.separation.speech_presence.tracks_noise or bool(model.ferns)


def _tables(model: Model) -> Iterator[str]:
    """The header of tables, a definition at a time."""
    config, dictionary = model.separation, model.dictionary
    yield f"/* Made by blsh_jax {__version__}. Included by blsh.c only. */\n"
    yield from _transform_tables(config.stft)
    if config.decisiveness:
        decisive = {"DECISIVENESS": config.decisiveness, "DECISION_MEMORY": stage.DECISION_MEMORY}
        decisive |= {"SURE_SPEECH": stage.SURE_SPEECH, "SURE_NOISE": stage.SURE_NOISE}
        decisive |= {"LEAST_PART": stage.LEAST_PART}
        yield _defines({name: f"{value:.8e}f" for name, value in decisive.items()})
    if config.strength != 1:
        yield _defines({"STRENGTH": f"{config.strength:.8e}f"})
    if config.features.kind != "magnitude":
        yield from _mel_tables("blsh_mel", config.features.num_mels, config.stft)
        yield _defines({"LOG_MEL_RANGE_DB": f"{spectra.LOG_MEL_RANGE_DB}f"})
    if config.features.levels:
        yield from _mel_tables("blsh_level", config.features.levels, config.stft)
        yield _defines({"LEVEL_RANGE_DB": f"{robust_features.LEVEL_RANGE_DB}f"})
    if config.features.voicing:
        yield from _mel_tables("blsh_voicing", config.features.voicing, config.stft)
    if config.features.voicing or model.ferns:
        lags, bins, reach = voicing.layout(config.stft)
        yield _defines({"FIRST_LAG": lags[0], "END_LAG": lags[1], "NEARBY": reach})
        yield _defines({"FIRST_COMB_BIN": bins[0], "END_COMB_BIN": bins[1]})
    if _tracks_noise(model):
        constants = speech_presence.constants()
        yield _defines({name.upper(): f"{value:.8e}f" for name, value in constants.items()})
        weights = speech_presence.bin_weights(
            config.speech_presence, config.stft, (config.stft.num_bins,)
        )._asdict()
        yield from (_table("float", f"blsh_{k}_weight", v) for k, v in weights.items())
    if model.ferns:
        (learned,) = model.ferns
        yield _defines({"FERN_STEP": f"{ferns.STEP:.8e}f"})
        yield _table("uint8_t", "blsh_fern_features", learned.features)
        yield _table("uint8_t", "blsh_fern_thresholds", learned.thresholds)
        yield _table("int16_t", "blsh_fern_tables", learned.tables)
    yield _table("float", "blsh_projections", model.hasher.projections)
    yield _table("float", "blsh_biases", model.hasher.biases)
    yield _table("uint32_t", "blsh_codes", np.asarray(dictionary.codes).T)  # word by word
    yield _table("uint32_t", "blsh_masks", dictionary.masks)


def _transform_tables(stft: StftConfig) -> Iterator[str]:
    hann = spectra.hann(stft.window_length)
    angles = -2 * np.pi * np.arange(stft.window_length // 2) / stft.window_length
    yield _table("float", "blsh_hann", hann)
    yield _table("float", "blsh_scales", 1 / np.square(hann).reshape(-1, stft.hop_length).sum(0))
    yield _table("float", "blsh_twiddles", np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _mel_tables(name: str, num_mels: int, stft: StftConfig) -> Iterator[str]:
    """Each filter's bins, from the first to the end, and all weights one after another."""
    filters = spectra.mel_filters(num_mels, stft)
    spans = [np.flatnonzero(column)[[0, -1]] for column in filters.T]
    weights = [column[a : b + 1] for column, (a, b) in zip(filters.T, spans, strict=True)]
    yield _table("int16_t", f"{name}_first", np.array([a for a, _ in spans]))
    yield _table("int16_t", f"{name}_end", np.array([b + 1 for _, b in spans]))
    yield _table("float", f"{name}_weights", np.concatenate(weights))


def _defines(names: dict[str, Any]) -> str:
    return "".join(f"#define BLSH_{name} {value}\n" for name, value in names.items())


def _table(kind: str, name: str, values: np.ndarray | Array) -> str:
    """A C array of constants."""
    array = np.asarray(values)
    sizes = "".join(f"[{size}]" for size in array.shape)
    return f"static const {kind} {name}{sizes} = {_braces(array, kind)};\n"


def _braces(array: np.ndarray, kind: str) -> str:
    if array.ndim > 1:
        return "{\n" + ",\n".join(_braces(row, kind) for row in array) + "}"
    # Nine digits tell every float32 apart.
    form = {"float": "{:.8e}f", "uint32_t": "{}u"}.get(kind, "{}")
    return "{" + ",".join(map(form.format, array)) + "}"

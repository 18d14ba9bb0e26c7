"""Models: one versioned .npz file in and out. No pickle."""

import dataclasses
import json
import os
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import config as configs
from blsh_jax._version import __version__
from blsh_jax.config import SeparationConfig, TrainConfig
from blsh_jax.files import replacing
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.separation import Dictionary, MaskFunction, SpectralDictionary
from blsh_jax.robust.speech_presence import mask_function
from blsh_jax.search.packing import num_words

FORMAT = "blsh_jax model"
FORMAT_VERSION = 7  # 6 is read, too
DEFAULT = "default"
_PRETRAINED_FOLDER = resources.files("blsh_jax.models")


class ModelError(ValueError):
    """A model file that cannot be used: which file, what is wrong, what to do."""


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Model:
    """All that denoising needs; a pytree, so that jitted functions take it as an argument.

    Attributes:
        config: how the model was trained; its ``separation`` says how it is used.
        dictionary: hash functions, codes and masks.
        provenance: corpora, licences, versions: plain values for JSON.
        frames: (N, D) float16 feature vectors of the dictionary's frames, which comparisons with
            other hash functions need; None in models that only denoise.
    """

    config: TrainConfig
    dictionary: Dictionary
    provenance: dict[str, Any]
    frames: np.ndarray | None = None

    @property
    def hasher(self) -> Hasher:
        """The hash functions, in order of importance."""
        return self.dictionary.hasher

    @property
    def separation(self) -> SeparationConfig:
        """How the model is used."""
        return self.config.separation

    @property
    def mask_function(self) -> MaskFunction:
        """The masks that it gives, for ``denoising.pipeline``."""
        return mask_function(self.dictionary, self.separation)

    def tree_flatten_with_keys(self):
        """Arrays, and what is static: provenance as text, which can be hashed."""
        key = jax.tree_util.GetAttrKey
        arrays = (key("dictionary"), self.dictionary), (key("frames"), self.frames)
        return arrays, (self.config, json.dumps(self.provenance, sort_keys=True))

    @classmethod
    def tree_unflatten(cls, static, arrays) -> "Model":
        """The inverse of ``tree_flatten_with_keys``."""
        (config, provenance), (dictionary, frames) = static, arrays
        return cls(config, dictionary, json.loads(provenance), frames)

    def without_frames(self) -> "Model":
        """The model that only denoises, a twentieth of the size."""
        return dataclasses.replace(self, frames=None)

    def spectral_dictionary(self) -> SpectralDictionary:
        """The dictionary's frames themselves, for the search on raw spectra.

        Raises:
            ModelError: the model was saved without its frames.
        """
        if self.frames is None:
            raise ModelError(
                "this model holds codes only: train one with experiments.train, which keeps the "
                "dictionary's frames, to compare with LSH or KNN"
            )
        frames = jnp.asarray(self.frames, jnp.float32)
        return SpectralDictionary(frames, self.dictionary.masks, self.dictionary.num_bins)


def save(model: Model, path: str | os.PathLike) -> None:
    """Write a model as one .npz file, whole or not at all.

    Args:
        model: what to write.
        path: the file; missing folders are made.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "library": __version__,
        "config": configs.to_dict(model.config),
        "num_bins": model.dictionary.num_bins,
        "provenance": model.provenance,
    }
    arrays = {
        "header": np.array(json.dumps(header)),
        "projections": model.hasher.projections,
        "biases": model.hasher.biases,
        "betas": model.hasher.betas,
        "codes": model.dictionary.codes,
        "masks": model.dictionary.masks,
    }
    if model.frames is not None:
        arrays["frames"] = model.frames
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{k: np.asarray(v) for k, v in arrays.items()})  # type: ignore[arg-type]


def load(path: str | os.PathLike) -> Model:
    """Read a model file.

    Args:
        path: a file that ``save`` wrote.

    Returns:
        The model.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: the file cannot be read, is damaged, is no model, or is of another format.
    """
    try:
        # Opened here, because np.load leaves a damaged file open.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"no model at {path}: check the path") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from None
    # AttributeError, TypeError: a file of one array is no archive.
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise ModelError(f"{path} is not a whole model file ({error}): copy it again") from error
    header = _header(path, arrays)
    try:
        hasher = Hasher(*(jnp.asarray(arrays[name]) for name in Hasher._fields))
        codes, masks = jnp.asarray(arrays["codes"]), jnp.asarray(arrays["masks"])
        dictionary = Dictionary(hasher, codes, masks, header["num_bins"])
        config = configs.from_dict(TrainConfig, _current(header["config"], header["version"]))
        model = Model(config, dictionary, header["provenance"], arrays.get("frames"))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a usable model: {error}") from error
    _check_shapes(path, model)
    return model


def load_pretrained(name: str = DEFAULT) -> Model:
    """A pretrained model, which comes with the package.

    Args:
        name: its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in pretrained_names():
        raise ValueError(
            f"no pretrained model {name!r}: choose one of {', '.join(pretrained_names())}"
        )
    with resources.as_file(_PRETRAINED_FOLDER / f"{name}.npz") as path:
        return load(path)


def load_named(name: str) -> Model:
    """A pretrained model by its name, or a model file; a file of that name comes first.

    Args:
        name: what a user typed.

    Raises:
        FileNotFoundError: it is neither.
        ModelError: as ``load``.
    """
    if name in pretrained_names() and not Path(name).is_file():
        return load_pretrained(name)
    return load(name)


def pretrained_names() -> list[str]:
    """Names of the pretrained models."""
    return sorted(
        entry.name.removesuffix(".npz")
        for entry in _PRETRAINED_FOLDER.iterdir()
        if entry.name.endswith(".npz")
    )


def _header(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    try:
        header = json.loads(str(arrays["header"]))
        known = header["format"] == FORMAT
    except (KeyError, TypeError, json.JSONDecodeError):
        known = False
    if not known:
        raise ModelError(f"{path} is an .npz file, but not a model of this package")
    if header["version"] not in (6, FORMAT_VERSION):
        newer = header["version"] > FORMAT_VERSION
        advice = "upgrade blsh_jax" if newer else "train it anew, or use the blsh_jax that wrote it"
        raise ModelError(
            f"{path} has model format {header['version']}, this version of blsh_jax reads "
            f"{FORMAT_VERSION}: {advice}"
        )
    return header


# Settings of format 6 by their names now.
_RENAMED = {
    "refine": "fine_tuning",
    "refine_steps": "fine_tuning_steps",
    "refine_queries": "fine_tuning_queries",
    "refine_answers": "fine_tuning_candidates",
    "refine_learning_rate": "fine_tuning_learning_rate",
    "variety": "augmentation",
    "made_noise": "synthetic_noise",
    "unvaried": "unaugmented",
    "lead_in_frames": "pre_roll_frames",
    "lowest_speech_hz": "high_pass_hz",
    "evidence": "speech_presence",
}


def _current(config: dict[str, Any], version: int) -> dict[str, Any]:
    """The configuration of a file, as this version names it."""
    if version == FORMAT_VERSION:
        return config

    def rename(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_RENAMED.get(name, name): rename(inner) for name, inner in value.items()}

    renamed = rename(config)
    renamed.pop("learner")  # bits were not always boosted
    used = [field.name for field in dataclasses.fields(SeparationConfig)]
    renamed["separation"] = {name: renamed.pop(name) for name in used}
    return renamed


def _check_shapes(path: str | os.PathLike, model: Model) -> None:
    hasher, dictionary = model.hasher, model.dictionary
    bits, frames = hasher.projections.shape[0], dictionary.codes.shape[0]
    expected = {
        "biases": (hasher.biases, (bits,)),
        "betas": (hasher.betas, (bits,)),
        "codes": (dictionary.codes, (frames, num_words(bits))),
        "masks": (dictionary.masks, (frames, num_words(dictionary.num_bins))),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ModelError(f"{path}: {name} has shape {array.shape}, expected {shape}")

"""Models: one versioned .npz file in and out. No pickle."""

import dataclasses
import io
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import config as configs
from blsh_jax import files, search
from blsh_jax._version import __version__
from blsh_jax.config import SeparationConfig, TrainConfig
from blsh_jax.models import archive
from blsh_jax.models.archive import Archive, Field, ModelError
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.separation import Dictionary, MaskFunction, SpectralDictionary
from blsh_jax.robust.bin_features import NUM_FEATURES
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns
from blsh_jax.robust.mask_stage import mask_function
from blsh_jax.search.packing import WORD_BITS, num_words

FORMAT = "blsh_jax model"
FORMAT_VERSION = 9  # 6, 7, and 8 without ferns are read, too
DEFAULT = "default"
MOST_STRENGTH = 4.0
_PRETRAINED_FOLDER = resources.files("blsh_jax.models")
_MOST_FEATURES = 16_384  # D, so that the features of a block of frames stay small
_MOST_BITS = 4096  # L
_KIND = "model file"
_STAGES = ("fern_", "second_fern_")  # before the names of the arrays of their ferns


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
        ferns: those of each stage (``robust.mask_stage``), if masks are learned.
    """

    config: TrainConfig
    dictionary: Dictionary
    provenance: dict[str, Any]
    frames: np.ndarray | None = None
    ferns: tuple[Ferns, ...] = ()

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
        return mask_function(self.dictionary, self.separation, self.ferns)

    def tree_flatten_with_keys(self):
        """Arrays, and what is static: provenance as text, which can be hashed."""
        key = jax.tree_util.GetAttrKey
        names = ("dictionary", "frames", "ferns")
        arrays = tuple((key(name), getattr(self, name)) for name in names)
        return arrays, (self.config, json.dumps(self.provenance, sort_keys=True))

    @classmethod
    def tree_unflatten(cls, static, arrays) -> "Model":
        """The inverse of ``tree_flatten_with_keys``."""
        (config, provenance), (dictionary, frames, ferns) = static, arrays
        return cls(config, dictionary, json.loads(provenance), frames, ferns)

    def without_look_ahead(self) -> "Model":
        """The model without the second stage of ferns, for the least delay."""
        learning = dataclasses.replace(self.config.ferns, num_second_ferns=0)
        config = dataclasses.replace(self.config, ferns=learning)
        return dataclasses.replace(self, config=config, ferns=self.ferns[:1])

    def with_strength(self, strength: float | str) -> "Model":
        """The model with its masks raised to a power besides that of its configuration.

        Args:
            strength: 1 leaves the masks as they are; above 1 more is taken away, below 1 more is
                kept; 0 takes nothing away. Or a name, of ``config.STRENGTHS``.

        Raises:
            ValueError: it is not from 0 to ``MOST_STRENGTH``, nor a name.
        """
        strength = configs.strength_of(strength)
        if not 0 <= strength <= MOST_STRENGTH:
            raise ValueError(f"strength is {strength}: give 0 (keeps all) to {MOST_STRENGTH:g}")
        exponent = self.separation.strength * strength
        separation = dataclasses.replace(self.separation, strength=float(exponent))
        config = dataclasses.replace(self.config, separation=separation)
        return dataclasses.replace(self, config=config)

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
                "this model holds codes only: train one with blsh train, which keeps the "
                "dictionary's frames, to compare with LSH or KNN"
            )
        frames = jnp.asarray(self.frames, jnp.float32)
        return SpectralDictionary(frames, self.dictionary.masks, self.dictionary.num_bins)


def save(model: Model, path: str | os.PathLike) -> None:
    """Write a model as one .npz file, whole or not at all.

    Args:
        model: what to write; float arrays are stored in the precision of their docstrings.
        path: the file; missing folders are made.

    Raises:
        ModelError: ``load`` would refuse the file: arrays do not fit one another or the
            configuration, or hold NaN or infinity. Nothing is written.
    """
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "library": __version__,
        "config": configs.to_dict(model.config),
        "num_bins": model.dictionary.num_bins,
        "provenance": model.provenance,
    }
    arrays: dict[str, Any] = {
        "header": np.array(json.dumps(header)),
        **{name: np.asarray(a, np.float32) for name, a in model.hasher._asdict().items()},
        "codes": np.asarray(model.dictionary.codes),
        "masks": np.asarray(model.dictionary.masks),
    }
    if model.frames is not None:
        arrays["frames"] = np.asarray(model.frames, np.float16)
    for stage, learned in zip(_STAGES, model.ferns, strict=False):
        arrays |= {stage + name: np.asarray(a) for name, a in learned._asdict().items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    _read(Archive(path, content, _KIND, "it is not saved"))
    files.write(path, content.getvalue())


def load(path: str | os.PathLike) -> Model:
    """Read a model file.

    The file is not trusted: types, shapes and sizes of its arrays and all settings are checked
    before it is unpacked, and what it holds must fit together. No pickle is read.

    Args:
        path: a file that ``save`` wrote.

    Returns:
        The model.

    Raises:
        FileNotFoundError: there is no such file.
        ModelError: the file cannot be read, is damaged, is no model, is of another format, or holds
            what no model holds.
    """
    try:
        with archive.reading(path, _KIND, "copy it again, or train it anew") as file:
            return _read(file)
    except FileNotFoundError:
        names = ", ".join(pretrained_names())
        text = f"no model at {path}: check the path, or choose a pretrained model: {names}"
        raise FileNotFoundError(text) from None


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


def _read(file: Archive) -> Model:
    header = file.header()
    config = _config(file, header)
    num_bits, num_frames = file.length("projections"), file.length("codes")
    try:
        fields = _fields(config, num_bits, num_frames)
    except ValueError as error:
        file.refuse("its configuration", f"cannot be used ({error})")
    num_bins = config.separation.stft.num_bins
    if header.get("num_bins") != num_bins:
        file.refuse("num_bins", f"is {header.get('num_bins')!r:.60}, but the window has {num_bins}")
    arrays = file.arrays(fields)
    for name, used in (("codes", num_bits), ("masks", num_bins)):
        unused = arrays[name].shape[1] * WORD_BITS - used
        if unused and (arrays[name][:, -1] >> np.uint32(WORD_BITS - unused)).any():
            file.refuse(name, f"has bits beyond the {used} that are in use")
    put = jax.device_put  # jnp.asarray compiles a program for each shape
    ferns: tuple[Ferns, ...] = ()
    for prefix, number in zip(_STAGES, _questioned(config), strict=False):
        learned = Ferns(*(put(arrays[prefix + name]) for name in Ferns._fields))
        if (np.asarray(learned.features) >= number).any():
            file.refuse(prefix + "features", f"asks for more than the {number} that there are")
        ferns += (learned,)
    hasher = Hasher(*(put(arrays[name]) for name in Hasher._fields))
    tiles = put(search.prepare(arrays["codes"]).tiles)
    codes, masks = put(arrays["codes"]), put(arrays["masks"])
    dictionary = Dictionary(hasher, codes, masks, num_bins, tiles)
    return Model(config, dictionary, header["provenance"], arrays.get("frames"), ferns)


def _questioned(config: TrainConfig) -> tuple[int, ...]:
    """Features that ferns of each stage may ask about: the second's are of later frames, too."""
    return (NUM_FEATURES, 2 * NUM_FEATURES)[: len(config.ferns.stages)]


def _config(file: Archive, header: dict[str, Any]) -> TrainConfig:
    """The settings, once the header is known to be that of a model of a format that is read."""
    if header.get("format") != FORMAT:
        file.refuse("format", f"is {header.get('format')!r:.60}, and should be {FORMAT!r}")
    version = header.get("version")
    if version not in (6, 7, 8, FORMAT_VERSION):
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "upgrade blsh_jax" if newer else "train it anew, or use the blsh_jax that wrote it"
        problem = f"is {version!r:.60}, and this blsh_jax reads 6 to {FORMAT_VERSION}"
        file.refuse("version", problem, advice)
    for name in ("config", "provenance"):
        if not isinstance(header.get(name), dict):
            file.refuse(name, "is missing, or is no object of JSON")
    config = header["config"] if version > 6 else _renamed(header["config"])
    try:
        settings = configs.from_dict(TrainConfig, config)
    except ValueError as error:
        file.refuse("its configuration", f"cannot be used ({error})")
    if version < FORMAT_VERSION and settings.ferns.num_ferns:
        problem = f"is {version}, whose ferns asked about other features"
        file.refuse("version", problem, "train it anew, or use the blsh_jax that wrote it")
    return settings


def _fields(settings: TrainConfig, num_bits: int, num_frames: int) -> dict[str, Field]:
    """What a model file must hold.

    Raises:
        ValueError: the settings do not go together, or ask for more than the limits.
    """
    config, ferns = settings.separation, settings.ferns
    size = feature_function(config.features, config.stft).size
    if size > _MOST_FEATURES or num_bits > _MOST_BITS:
        raise ValueError(
            f"{size} features and {num_bits} bits: give {_MOST_FEATURES} and {_MOST_BITS} at most"
        )
    if num_frames < config.num_neighbors:
        raise ValueError(f"num_neighbors is {config.num_neighbors}: there are {num_frames} frames")
    learned: dict[str, Field] = {}
    for prefix, count in zip(_STAGES, ferns.stages, strict=False):
        learned |= {
            f"{prefix}features": Field("|u1", (count, ferns.fern_bits)),
            f"{prefix}thresholds": Field("|u1", (count, ferns.fern_bits)),
            f"{prefix}tables": Field("<i2", (count, 1 << ferns.fern_bits)),
        }
    return learned | {
        "projections": Field("<f4", (num_bits, size)),
        "biases": Field("<f4", (num_bits,)),
        "betas": Field("<f4", (num_bits,)),
        "codes": Field("<u4", (num_frames, num_words(num_bits))),
        "masks": Field("<u4", (num_frames, num_words(config.stft.num_bins))),
        "frames": Field("<f2", (num_frames, size), optional=True),
    }


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


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of format 6, as this version names it."""
    sections = {
        _RENAMED.get(section, section): {_RENAMED.get(name, name): v for name, v in inner.items()}
        if isinstance(inner, dict)
        else inner
        for section, inner in config.items()
        if section != "learner"  # bits were not always boosted
    }
    used = {field.name for field in dataclasses.fields(SeparationConfig)} & set(sections)
    return sections | {"separation": {name: sections.pop(name) for name in used}}

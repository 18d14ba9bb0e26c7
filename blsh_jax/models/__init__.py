"""Models: one versioned file in and out, and the pretrained ones."""

from blsh_jax.models.archive import ModelError
from blsh_jax.models.model import (
    DEFAULT,
    FORMAT_VERSION,
    Model,
    load,
    load_named,
    load_pretrained,
    pretrained_names,
    save,
)

__all__ = [
    "DEFAULT",
    "FORMAT_VERSION",
    "Model",
    "ModelError",
    "load",
    "load_named",
    "load_pretrained",
    "pretrained_names",
    "save",
]

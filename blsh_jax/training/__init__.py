"""Training: boosting driven over blocks, devices and memory plans; from mixtures to a model."""

from blsh_jax.training.adaptation import adapt
from blsh_jax.training.blocks import training_mesh
from blsh_jax.training.dictionary import Analysis, FrameSample, analyse, hash_frames, sample_frames
from blsh_jax.training.driver import FitInfo, fit
from blsh_jax.training.recipe import learn, train

__all__ = [
    "Analysis",
    "FitInfo",
    "FrameSample",
    "adapt",
    "analyse",
    "fit",
    "hash_frames",
    "learn",
    "sample_frames",
    "train",
    "training_mesh",
]

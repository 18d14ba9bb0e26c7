"""Mixtures of unlike lengths as arrays of few shapes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from blsh_jax.corpora.mixing import Mixture, Mixtures


class Batch(NamedTuple):
    """U mixtures, zeros after the end of each.

    Attributes:
        speech: (U, n) float32.
        noise: (U, n) float32.
        lengths: (U,) int32, samples that are signal; 0 for a row that only fills the batch.
        indices: (U,) int32, place in the sequence of mixtures; -1 for a row that only fills.
    """

    speech: np.ndarray
    noise: np.ndarray
    lengths: np.ndarray
    indices: np.ndarray

    @property
    def mixture(self) -> np.ndarray:
        """(U, n) float32."""
        return self.speech + self.noise


def batches(
    mixtures: Mixtures | Sequence[Mixture], batch_size: int, multiple: int = 16_000
) -> Iterator[Batch]:
    """Groups mixtures of similar length, the longest first, each mixture once.

    Every batch has U = ``batch_size`` rows and n a multiple of ``multiple``, so a jitted function
    is compiled once per distinct n; the last batch is filled up with silent rows of length 0.

    Args:
        mixtures: the mixtures; only those of one batch are in memory at a time.
        batch_size: U.
        multiple: what n is rounded up to, in samples.

    Raises:
        ValueError: a size is below 1.
    """
    if batch_size < 1 or multiple < 1:
        raise ValueError(f"batch_size {batch_size} and multiple {multiple} must be 1 or more")
    lengths = mixture_lengths(mixtures)
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        padded = -(-int(lengths[chosen[0]]) // multiple) * multiple
        speech, noise = np.zeros((2, batch_size, padded), np.float32)
        for row, index in enumerate(chosen):
            mixture = mixtures[int(index)]
            speech[row, : lengths[index]], noise[row, : lengths[index]] = mixture[:2]
        unused = (0, batch_size - len(chosen))
        used = np.pad(lengths[chosen], unused).astype(np.int32)
        indices = np.pad(chosen, unused, constant_values=-1).astype(np.int32)
        yield Batch(speech, noise, used, indices)


def mixture_lengths(mixtures: Mixtures | Sequence[Mixture]) -> np.ndarray:
    """(U,) int64, the samples of each mixture, without mixing where that can be told."""
    if hasattr(mixtures, "lengths"):
        return mixtures.lengths
    return np.array([len(mixture.speech) for mixture in mixtures], np.int64)

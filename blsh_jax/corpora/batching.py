"""Mixtures of unlike lengths as arrays of few shapes."""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    While a batch is used, threads make the mixtures of the next one: most of a mixture's time is
    spent in FFTs and resampling, which do not hold Python's lock.

    Args:
        mixtures: the mixtures; only those of two batches are in memory at a time.
        batch_size: U.
        multiple: what n is rounded up to, in samples.

    Raises:
        ValueError: a size is below 1.
    """
    if batch_size < 1 or multiple < 1:
        raise ValueError(f"batch_size {batch_size} and multiple {multiple} must be 1 or more")
    lengths = mixture_lengths(mixtures)
    order = np.argsort(-lengths, kind="stable")
    starts = range(0, len(order), batch_size)
    pool = ThreadPoolExecutor(os.cpu_count())
    making: list[Future[Mixture]] = []
    try:
        for start, following in itertools.pairwise((0, *starts, len(order))):
            chosen, made = order[start:following], making
            ahead = order[following : following + batch_size]
            making = [pool.submit(mixtures.__getitem__, int(index)) for index in ahead]
            if made:
                yield _batch([mixture.result() for mixture in made], chosen, batch_size, multiple)
    finally:
        pool.shutdown(cancel_futures=True)


def _batch(
    mixtures: Sequence[Mixture], indices: np.ndarray, batch_size: int, multiple: int
) -> Batch:
    """Mixtures, the longest first, as the first rows of a batch."""
    padded = -(-len(mixtures[0].speech) // multiple) * multiple
    speech, noise = np.zeros((2, batch_size, padded), np.float32)
    lengths = np.zeros(batch_size, np.int32)
    for row, mixture in enumerate(mixtures):
        lengths[row] = len(mixture.speech)
        speech[row, : lengths[row]], noise[row, : lengths[row]] = mixture[:2]
    places = np.full(batch_size, -1, np.int32)
    places[: len(indices)] = indices
    return Batch(speech, noise, lengths, places)


def mixture_lengths(mixtures: Mixtures | Sequence[Mixture]) -> np.ndarray:
    """(U,) int64, the samples of each mixture, without mixing where that can be told."""
    if hasattr(mixtures, "lengths"):
        return mixtures.lengths
    return np.array([len(mixture.speech) for mixture in mixtures], np.int64)

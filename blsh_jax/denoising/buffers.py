"""A queue of samples between parts that take blocks of different sizes."""

import numpy as np


class SampleQueue:
    """First in, first out, along the last axis.

    Args:
        channels: number of rows.
        dtype: of the samples.
    """

    def __init__(self, channels: int, dtype: np.typing.DTypeLike = np.float32):
        self._samples = np.zeros((channels, 0), dtype)

    def __len__(self) -> int:
        return self._samples.shape[-1]

    def put(self, samples: np.ndarray) -> None:
        """Append (channels, n) samples."""
        self._samples = np.concatenate([self._samples, samples], axis=-1, dtype=self._samples.dtype)

    def take(self, count: int) -> np.ndarray:
        """Remove and return the oldest ``count`` samples: (channels, count)."""
        taken, self._samples = self._samples[:, :count], self._samples[:, count:]
        return taken

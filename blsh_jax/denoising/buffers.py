"""What carries a signal from call to call: a queue of samples, and turns taken at it."""

import threading

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


class Turns:
    """Calls that carry a signal on, one at a time; ``with turns:`` around each.

    Raises:
        RuntimeError: another thread is in a call, or a call before ended in the middle, by Ctrl-C
            or for lack of memory, so that nobody knows how far the signal came.
    """

    def __init__(self):
        self._lock, self._broken_off = threading.Lock(), False

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "two threads work on this signal at once: let one wait for the other"
            )
        if self._broken_off:
            self._lock.release()
            raise RuntimeError("a call was stopped in the middle of this signal: begin a new one")

    def __exit__(self, kind, error, traceback) -> None:
        self._broken_off = kind is not None
        self._lock.release()

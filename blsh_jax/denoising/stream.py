"""Denoising one signal that comes in pieces: the pipeline with its state carried.

Letters: C channels, H hops of a block, n samples.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from blsh_jax import kept
from blsh_jax.corpora.audio import LOUDEST
from blsh_jax.denoising import pipeline
from blsh_jax.denoising.buffers import SampleQueue, Turns
from blsh_jax.denoising.pipeline import State
from blsh_jax.models.model import Model
from blsh_jax.robust import bin_features
from blsh_jax.robust.mask_stage import zeros_of
from blsh_jax.robust.pre_roll import with_pre_roll

# Blocks that are in work while another is asked for: two threads take turns.
_MOST_PENDING = 2
_worker = ThreadPoolExecutor(1, "blsh_jax")


def latency(model: Model) -> int:
    """Samples by which the output of ``step`` lags its input."""
    return pipeline.latency(model.mask_function.look_ahead, model.separation.stft)


def init(model: Model, channels: int = 1) -> State:
    """The state before the first sample.

    Args:
        model: what to denoise with.
        channels: C.
    """
    return pipeline.init(model.mask_function, channels, model.separation.stft)


class Heard(NamedTuple):
    """A block.

    Attributes:
        speech: (C, n) float32.
        high_gain: (C, n) float32, as of ``pipeline.Output``.
    """

    speech: Array
    high_gain: Array


def advance(model: Model, state: State, samples: Array, floor: Array) -> tuple[State, Heard]:
    """A block of hops, outside of ``jit`` in parts (``pipeline.apply``).

    Args:
        model: what to denoise with.
        state: from ``init`` or the block before.
        samples: (C, H * hop) float32 at the model's rate.
        floor: () float32, the smallest gain of a bin, in [0, 1].

    Returns:
        The next state, and the block, ``latency`` samples later.

    Raises:
        ValueError: as ``step``.
    """
    state, output = pipeline.apply(
        model.mask_function, state, samples, model.separation.stft, floor
    )
    return state, Heard(output.speech, output.high_gain)


@jax.jit
def step(model: Model, state: State, hop: Array) -> tuple[State, Array]:
    """One hop in, one hop out, ``latency`` samples later. Pure: scans, jits and vmaps.

    It begins in silence: ``Stream`` adds the pre-roll that a model asks for.

    Args:
        model: what to denoise with.
        state: from ``init`` or the step before.
        hop: (C, hop) float32 at the model's rate; (C, H * hop) gives the same as H steps, faster.
            Samples that are NaN, infinite or beyond ``LOUDEST`` count as 0, as in the exported C.

    Returns:
        The next state, and the speech, of the shape of ``hop``.

    Raises:
        ValueError: ``hop`` is no whole number of hops, or of other channels than the state.
    """
    state, heard = advance(model, state, hop, jnp.float32(0))
    return state, heard.speech


_advance_at_once = kept.jit(advance)  # one program: the least time from first sample to last


class _AtOnce:
    """That of one stream, which is looked up once: finding it takes a part of a hop's time."""

    _program: Callable[..., Any] | None = None

    def __call__(self, *given: Any) -> Any:
        self._program = self._program or _advance_at_once.program(*given)
        return self._program(*given)


def _advance_elsewhere(*given: Any) -> Any:
    """``advance``, asked for by another thread.

    JAX goes on behind a call, but does what one thread asks for one by one.
    """
    device = jax.config.jax_default_device  # type: ignore[attr-defined]

    def ask() -> Any:
        with jax.default_device(device):
            return advance(*given)

    return _worker.submit(ask).result()


def _prepare(model: Model, hops: int) -> None:
    """Have the longest of the parts at hand while others are made."""
    config, stft = model.separation.speech_presence, model.separation.stft
    past = jax.eval_shape(lambda: bin_features.nothing_heard((1, stft.num_bins)))
    mask, mixture = (
        jax.ShapeDtypeStruct((1, hops, stft.num_bins), dtype) for dtype in ("float32", "complex64")
    )
    bin_features.bin_features.program(past, mask, mixture, config, stft)


def as_samples(samples: npt.ArrayLike, name: str = "samples") -> np.ndarray:
    """What people give, as an array of samples: not copied if it is one.

    Args:
        samples: floating point; an array of any library, a list or a buffer.
        name: of the argument, for messages.

    Raises:
        ValueError: NumPy cannot read it, or it is not floating point.
    """
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:  # of other devices, ragged lists
        kind = type(samples).__name__
        raise ValueError(
            f"{name} is a {kind}, not a NumPy array, nor readable as one ({error})"
        ) from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        # Of audio; integers of 64 bits are those of a list, whose scale nobody knows.
        signed = array.dtype in (np.int8, np.int16, np.int32)
        scaled = f", such as {name} / {np.iinfo(array.dtype).max + 1}" if signed else ""
        raise ValueError(f"{name} is {array.dtype}: give floating point samples in [-1, 1]{scaled}")
    return array


def check_samples(samples: np.ndarray) -> None:
    """Raise ValueError about samples that would spoil all that follow.

    Args:
        samples: of any shape; none of them NaN, infinite or beyond ``LOUDEST`` passes.
    """
    if not float(np.abs(samples).max(initial=0)) <= LOUDEST:
        raise ValueError(
            f"samples holds NaN, infinity, or more than {LOUDEST:g}: replace them before denoising"
        )


class Stream:
    """Denoises one signal at the model's rate that comes in pieces of any length.

    With a pre-roll, nothing comes out until the first ``pre_roll_samples`` are in; then all is
    given that is done, and ``latency`` holds as without.

    All that ``feed`` and ``flush`` return, side by side, is the denoised signal, of the same length
    and aligned to the sample. ``flush`` ends a signal; the stream is as new then. A piece that is
    refused changes nothing. One thread at a time may work on a signal (``buffers.Turns``).

    Args:
        model: what to denoise with.
        channels: C for (C, n) pieces; None for (n,) pieces.
        floor: the smallest gain of a bin, in [0, 1].
        hops: H, hops that are worked on at a time: 1 for the least delay, hundreds for files; of
            more than one, two blocks are in work while the next one fills.
        pre_roll: hold the first samples back until there are enough to hear them backwards before
            (``robust.pre_roll``), if the model's features ask for that; without it the noise
            is learned on the way, as a live signal needs.
    """

    def __init__(
        self,
        model: Model,
        channels: int | None = None,
        floor: float = 0.0,
        hops: int = 1,
        pre_roll: bool = True,
    ):
        # Its frames and where it is from are for people: they would travel with every block.
        self._model = dataclasses.replace(model, frames=None, provenance={})
        self._channels = channels
        self._floor = np.float32(floor)
        self._stft = model.separation.stft
        self._pre_roll_frames = model.separation.features.pre_roll_frames if pre_roll else 0
        self._pre_roll = self._pre_roll_frames * self._stft.hop_length
        self._rows = 1 if channels is None else channels
        self._block = hops * self._stft.hop_length
        self._ways: Iterator[Callable[..., Any]] = itertools.repeat(_AtOnce())
        self._most_pending = 0
        if hops > 1:
            self._ways = itertools.cycle((advance, _advance_elsewhere))
            self._most_pending = _MOST_PENDING
            if model.ferns:
                _worker.submit(_prepare, self._model, hops)
        self._turns = Turns()
        self._restart()

    def feed(self, samples: npt.ArrayLike) -> np.ndarray:
        """Take the next samples; return those that are done.

        Args:
            samples: (n,) or (C, n) floats, n of any size.

        Returns:
            (m,) or (C, m) float32.

        Raises:
            ValueError: ``samples`` has other axes or channels than the stream, is not floating
                point, or holds NaN, infinity or more than ``LOUDEST``.
            RuntimeError: as ``buffers.Turns``.
        """
        samples = as_samples(samples)
        lead = () if self._channels is None else (self._channels,)
        if samples.ndim == 0 or samples.shape[:-1] != lead:
            wanted = "(n,)" if self._channels is None else f"({self._channels}, n)"
            raise ValueError(f"samples has shape {samples.shape}: give {wanted}")
        check_samples(samples)
        return self.feed_rows(samples.reshape(self._rows, -1))[0].reshape(*lead, -1)

    def flush(self) -> np.ndarray:
        """The rest of the signal, after its last sample; then the stream takes a new signal.

        Raises:
            RuntimeError: as ``buffers.Turns``.
        """
        speech = self.flush_rows()[0]
        return speech[0] if self._channels is None else speech

    def feed_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``feed`` of (C, n): the speech, and the gain for higher bands beside it, (C, m) each."""
        with self._turns:
            self._owed += rows.shape[-1]
            self._waiting.put(rows)
            if not self._begun and len(self._waiting) <= self._pre_roll:
                return self._run(0)
            self._begin()
            return self._run(len(self._waiting) // self._block)

    def flush_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """``flush`` to (C, m): the speech, and the gain for higher bands beside it."""
        with self._turns:
            self._begin()
            blocks = -(-(self._owed + self._skip) // self._block) if self._owed else 0
            blocks -= len(self._pending)
            self._waiting.put(np.zeros((self._rows, blocks * self._block - len(self._waiting))))
            rest = self._run(blocks, most_pending=0)
            self._restart()
        return rest

    def _restart(self) -> None:
        silence = zeros_of(jax.eval_shape(init, self._model))
        self._states = [silence] * self._rows
        self._waiting, self._pending = SampleQueue(self._rows), collections.deque[list[Heard]]()
        self._skip = latency(self._model) + self._pre_roll
        self._owed, self._begun = 0, False

    def _begin(self) -> None:
        """Put the pre-roll before the first samples, once there are any."""
        if self._begun or not self._owed:
            return
        start, rest = self._waiting.take(self._pre_roll + 1), len(self._waiting)
        self._waiting.put(with_pre_roll(start, self._pre_roll_frames, self._stft))
        self._waiting.put(self._waiting.take(rest))
        self._begun = True

    def _run(self, blocks: int, most_pending: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Work on whole blocks; what is done, but for so many blocks that may still be in work."""
        most = self._most_pending if most_pending is None else most_pending
        done = [(np.zeros((self._rows, 0), np.float32),) * 2]
        for _ in range(blocks):
            samples = self._waiting.take(self._block)
            self._pending.append([])
            # One after another: one compiled step, however many channels there are.
            for row, state in enumerate(self._states):
                given = self._model, state, samples[row : row + 1], self._floor
                self._states[row], heard = next(self._ways)(*given)
                self._pending[-1].append(heard)
            if len(self._pending) > self._most_pending:
                done.append(self._take())
        while len(self._pending) > most:
            done.append(self._take())
        speech, gain = (np.concatenate(parts, axis=-1) for parts in zip(*done, strict=True))
        return speech, gain

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        """The oldest block, (C, n) each, but for what is before the start or after the end."""
        rows = zip(*self._pending.popleft(), strict=True)
        first, last = self._skip, self._skip + self._owed
        speech, gain = (np.concatenate(row)[:, first:last] for row in rows)
        self._skip = max(0, self._skip - self._block)
        self._owed -= speech.shape[-1]
        return speech, gain

"""Mask stages: what becomes of the neighbours' masks before they are applied.

Speech presence joins them with the noise that the utterance shows by a formula. Boosted ferns take
the neighbours' mask, the joined one and more of each bin as features, and learn what the formula
leaves to choose. A second stage of ferns takes the first one's mask for the neighbours', so that
noise is tracked anew with a better mask, and looks a few frames ahead.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import kept
from blsh_jax.config import SeparationConfig, SpeechPresenceConfig, StftConfig
from blsh_jax.paper.separation import FrameDictionary, MaskFunction, NeighborMask
from blsh_jax.robust import ferns
from blsh_jax.robust.bin_features import NUM_FEATURES, BinPast, bin_features, nothing_heard
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.ferns import Ferns
from blsh_jax.robust.speech_presence import with_presence

LOOK_AHEAD = 3  # frames, of the second stage
DECISION_MEMORY = 0.98  # of frames of 16 ms
SURE_SPEECH, SURE_NOISE = 4.0, -2.0  # log-odds
LEAST_PART = 1 / (1 + math.exp(6))


class FernState(NamedTuple):
    """State of a ``FernMask``.

    Attributes:
        inner: that of the inner mask function.
        spectra: (..., r, F) complex64, the newest, for which it has no masks yet.
        past: that of the bins' features.
        values: (D, ..., R, F) uint8, the newest features, which still wait for later ones.
    """

    inner: Any
    spectra: Array
    past: BinPast
    values: Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inner", "ferns"],
    meta_fields=["presence", "stft", "ahead"],
)
@dataclasses.dataclass(frozen=True)
class FernMask:
    """A mask function that asks boosted ferns about each bin.

    Attributes:
        inner: the mask function whose masks are some of the features.
        ferns: M ferns, or None to have the features alone, to learn on.
        presence: weights of speech presence, which is another.
        stft: the transform.
        ahead: R, frames that ferns look ahead: they are asked about the features of a bin and of
            the same bin R frames later, 2 D in all; 0 for those of the bin alone.
    """

    inner: MaskFunction
    ferns: Ferns | None
    presence: SpeechPresenceConfig
    stft: StftConfig
    ahead: int = 0

    @property
    def look_ahead(self) -> int:
        """Later frames that a frame's mask needs."""
        return self.inner.look_ahead + self.ahead

    def init(self, shape: tuple[int, ...]) -> FernState:
        """The state before the first frame."""
        bins = self.stft.num_bins
        return FernState(
            self.inner.init(shape),
            jnp.zeros((*shape, self.inner.look_ahead, bins), jnp.complex64),
            nothing_heard((*shape, bins)),
            jnp.zeros((NUM_FEATURES, *shape, self.ahead, bins), jnp.uint8),
        )

    def features(self, state: FernState, newest: Array) -> tuple[FernState, Array]:
        """What the ferns are asked about.

        Args:
            state: from ``init`` or the call before.
            newest: (..., T, F) complex64.

        Returns:
            The next state, and (D or 2 D, ..., T, F) uint8, of the frames ``look_ahead`` before.
        """
        state, values = self._of_bins(state, newest)
        waiting, values = _with_later(state.values, values)
        return state._replace(values=waiting), values

    def __call__(self, state: FernState, newest: Array, current: Array) -> tuple[FernState, Array]:
        """As ``MaskFunction``."""
        if self.ferns is None:
            raise ValueError("no ferns to ask: learn them first")
        state, values = self._of_bins(state, newest)
        waiting, mask = _ask(self.ferns, state.values, values)
        return state._replace(values=waiting), mask

    def _of_bins(self, state: FernState, newest: Array) -> tuple[FernState, Array]:
        """The features (D, ..., T, F) of the newest bins that the inner function has masks of."""
        spectra, current = delayed(state.spectra, newest)
        inner, mask = call(self.inner, state.inner, newest, current)
        past, values = bin_features(state.past, mask, current, self.presence, self.stft)
        return FernState(inner, spectra, past, state.values), values


def call(function: MaskFunction, state: Any, newest: Array, current: Array) -> tuple[Any, Array]:
    """A mask function as few programs, outside of jit: ferns in parts, others as one.

    Parts are compiled once for all that have them in common, as both stages of ferns have the
    features of bins, and the next block's can begin before this block is done.

    Args:
        function: the mask function.
        state: as of ``MaskFunction``, as are the others.
        newest: (..., T, F) complex64.
        current: (..., T, F) complex64.

    Returns:
        As ``MaskFunction``.
    """
    outer = function
    while isinstance(outer, (DecisiveMask, PowerMask)):
        outer = outer.inner
    if isinstance(outer, FernMask):
        return function(state, newest, current)
    return _at_once(function, state, newest, current)  # type: ignore[no-any-return]


def zeros_of(state: Any) -> Any:
    """A state before the first frame as NumPy arrays: the zeros of JAX are compiled, size by size.

    Args:
        state: shapes and dtypes of what ``init`` returns, of ``jax.eval_shape``.
    """
    return jax.tree.map(lambda zeros: np.zeros(zeros.shape, zeros.dtype), state)


@kept.jit
def _at_once(function: MaskFunction, state: Any, newest: Array, current: Array) -> Any:
    return function(state, newest, current)


@kept.jit
def _ask(asked: Ferns, waiting: Array, values: Array) -> tuple[Array, Array]:
    """The features that wait for later ones now, and the mask of the frames that have theirs."""
    waiting, values = _with_later(waiting, values)
    return waiting, jax.nn.sigmoid(ferns.score(asked, values))


def _with_later(waiting: Array, values: Array) -> tuple[Array, Array]:
    """The features that wait for later ones now, and beside those that waited the later ones."""
    if not waiting.shape[-2]:
        return waiting, values
    waiting, earlier = delayed(waiting, values)
    return waiting, jnp.concatenate([earlier, values])


def delayed(waiting: Array, newest: Array) -> tuple[Array, Array]:
    """A delay of R frames.

    Args:
        waiting: (..., R, F), the last frames before.
        newest: (..., T, F).

    Returns:
        The last R frames now, and (..., T, F), the frames R before the newest.
    """
    return _shifted(waiting, newest) if waiting.shape[-2] else (waiting, newest)


@kept.jit
def _shifted(waiting: Array, newest: Array) -> tuple[Array, Array]:
    known, count = jnp.concatenate([waiting, newest], axis=-2), newest.shape[-2]
    return known[..., count:, :], known[..., :count, :]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=["weight"])
@dataclasses.dataclass(frozen=True)
class DecisiveMask:
    """A mask function that passes clean speech, and silences noise without speech, more wholly.

    Of the energy of the last second, weighed down by 0.98 a frame, masks keep K and take N away.
    The log-odds s = log(K / N), limited to +-6, of clean speech are above ``SURE_SPEECH``, which
    those of mixtures seldom reach, those of noise alone below ``SURE_NOISE``. So the log-odds of
    all bins of a frame are shifted by

        weight (max(s - SURE_SPEECH, 0) - max(SURE_NOISE - max(s, s of the frame itself), 0)),

    the frame itself so that a voice that sets in is heard at once.

    Attributes:
        inner: the mask function.
        weight: how far.
    """

    inner: MaskFunction
    weight: float

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return self.inner.look_ahead

    def init(self, shape: tuple[int, ...]) -> tuple[Any, Array]:
        """The state before the first frame: that of the inner one, and (..., 2) energies."""
        return self.inner.init(shape), jnp.zeros((*shape, 2), jnp.float32)

    def __call__(
        self, state: tuple[Any, Array], newest: Array, current: Array
    ) -> tuple[tuple[Any, Array], Array]:
        """As ``MaskFunction``."""
        inner, mask = self.inner(state[0], newest, current)
        past, mask = _decided(state[1], mask, current, self.weight)
        return (inner, past), mask


@functools.partial(kept.jit, static_argnames=("weight",))
def _decided(past: Array, mask: Array, current: Array, weight: float) -> tuple[Array, Array]:
    energy = jnp.square(jnp.abs(current))
    parts = jnp.stack([jnp.sum(m * energy, axis=-1) for m in (mask, 1 - mask)], axis=-1)

    def follow(before: Array, now: Array) -> tuple[Array, Array]:
        after = DECISION_MEMORY * before + now
        return after, after

    last, recent = jax.lax.scan(follow, past, jnp.moveaxis(parts, -2, 0))
    of_frame, of_late = _log_ratio(parts), _log_ratio(jnp.moveaxis(recent, 0, -2))
    raised = jnp.maximum(of_late - SURE_SPEECH, 0)
    lowered = jnp.maximum(SURE_NOISE - jnp.maximum(of_late, of_frame), 0)
    against = jnp.exp(weight * (lowered - raised))[..., None]
    return last, mask / (mask + (1 - mask) * against)


def _log_ratio(parts: Array) -> Array:
    """(..., 2) energies kept and taken away to (...) log-odds, limited; 0 in digital silence."""
    total = jnp.sum(parts, axis=-1)
    share = jnp.where(total > 0, parts[..., 0] / jnp.where(total > 0, total, 1), 0.5)
    share = jnp.clip(share, LEAST_PART, 1 - LEAST_PART)
    return jnp.log(share / (1 - share))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=["exponent"]
)
@dataclasses.dataclass(frozen=True)
class PowerMask:
    """A mask function whose masks are raised to a power.

    Attributes:
        inner: the mask function.
        exponent: above 1 more is taken away, below 1 more is kept.
    """

    inner: MaskFunction
    exponent: float

    @property
    def look_ahead(self) -> int:
        """R, later frames that a frame's mask needs."""
        return self.inner.look_ahead

    def init(self, shape: tuple[int, ...]) -> Any:
        """The state before the first frame."""
        return self.inner.init(shape)

    def __call__(self, state: Any, newest: Array, current: Array) -> tuple[Any, Array]:
        """As ``MaskFunction``."""
        state, mask = self.inner(state, newest, current)
        return state, _power(mask, self.exponent)


@functools.partial(kept.jit, static_argnames=("exponent",))
def _power(mask: Array, exponent: float) -> Array:
    return mask**exponent


def phase_sensitive_mask(speech: Array, mixture: Array) -> Array:
    """What ferns learn: the gain that brings each bin of a mixture nearest to the speech.

    Args:
        speech: (..., F) complex64 spectra of the clean speech.
        mixture: (..., F) complex64.

    Returns:
        (..., F) float32, |S| / |X| cos(angle between S and X), within [0, 1].

    Source: H. Erdogan et al., "Phase-sensitive and recognition-boosted speech separation using deep
    recurrent neural networks", ICASSP 2015, eq. 12.
    """
    energy = jnp.square(jnp.abs(mixture))
    along = jnp.real(speech * jnp.conj(mixture))
    return jnp.clip(along / jnp.where(energy > 0, energy, jnp.inf), 0, 1)


def fern_stage(
    inner: MaskFunction, learned: Ferns | None, stage: int, config: SeparationConfig
) -> FernMask:
    """A stage of ferns behind a mask function.

    Args:
        inner: the mask function of the neighbours, or of the stage before.
        learned: the ferns, or None to learn them.
        stage: 0 for the first, which looks at no later frame, 1 for the second, which does.
        config: transform and speech presence.
    """
    ahead = LOOK_AHEAD if stage else 0
    return FernMask(inner, learned, config.speech_presence, config.stft, ahead)


def with_ferns(
    inner: MaskFunction, stages: Sequence[Ferns], config: SeparationConfig
) -> MaskFunction:
    """A mask function with stages of ferns behind it.

    Args:
        inner: the mask function of the neighbours.
        stages: ferns of the first stage and of the second, or fewer.
        config: transform and speech presence.
    """
    for stage, learned in enumerate(stages):
        inner = fern_stage(inner, learned, stage, config)
    return inner


def mask_function(
    dictionary: FrameDictionary, config: SeparationConfig, stages: Sequence[Ferns] = ()
) -> MaskFunction:
    """The masks that a dictionary gives, used as a configuration says.

    Args:
        dictionary: a ``Dictionary`` or a ``SpectralDictionary``.
        config: transform, features, neighbours, speech presence, decisiveness and strength.
        stages: ferns of the dictionary, as of ``with_ferns``; without them speech presence is the
            mask stage.
    """
    features = feature_function(config.features, config.stft)
    neighbors = NeighborMask(dictionary, features, config.num_neighbors)
    staged = with_ferns(neighbors, stages, config) if stages else with_presence(neighbors, config)
    if config.decisiveness:
        staged = DecisiveMask(staged, config.decisiveness)
    return staged if config.strength == 1 else PowerMask(staged, config.strength)

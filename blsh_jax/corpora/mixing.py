"""Mixtures of speech and noise, made when they are asked for."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from blsh_jax.corpora.recordings import SILENCE, Loaded, Recording

Part = Literal["whole", "train", "closed"]

_TRIES = 32


class Mixture(NamedTuple):
    """Speech, the noise added to it, and where both come from.

    Attributes:
        speech: (n,) float32.
        noise: (n,) float32, scaled: 10 log10(sum speech² / sum noise²) = snr_db.
        snr_db: signal-to-noise ratio in dB.
        speech_key: key of the utterance.
        noise_key: key of the noise.
    """

    speech: np.ndarray
    noise: np.ndarray
    snr_db: float
    speech_key: str = ""
    noise_key: str = ""

    @property
    def mixture(self) -> np.ndarray:
        """(n,) float32, what a microphone would have heard."""
        return self.speech + self.noise

    @property
    def key(self) -> str:
        """Unique within a set of mixtures."""
        return f"{self.speech_key}+{self.noise_key}"


def mix(
    speech: np.ndarray,
    noise: np.ndarray,
    snr_db: float,
    offset: int | np.random.Generator,
    speech_key: str = "",
    noise_key: str = "",
) -> Mixture:
    """Adds a cut of the noise to the speech.

    A noise at least as long as the speech is cut in one piece. A shorter one is entered at the
    offset and starts over at its end, as often as needed, so that every part of it is used.

    Args:
        speech: (n,) floats.
        noise: (m,) floats, m of any size.
        snr_db: signal-to-noise ratio in dB, over the n samples.
        offset: where in the noise the cut starts, or a generator that draws it, again if the cut
            is silent.
        speech_key: named in the result and in errors.
        noise_key: named in the result and in errors.

    Raises:
        ValueError: the speech is silent, or the noise where it is cut.
    """
    speech = np.asarray(speech, np.float32)
    if is_silent(speech):
        raise ValueError(f"speech {speech_key!r} is silent: no SNR can be set")
    if isinstance(offset, np.random.Generator):
        cut = _draw_cut(noise, 0, len(speech), len(speech), offset)
    else:
        cut = wrapped_cut(noise, offset, len(speech))
    if cut is None or is_silent(cut):
        raise ValueError(f"noise {noise_key!r} is silent where it is cut: no SNR can be set")
    return _scaled(speech, cut, snr_db, speech_key, noise_key)


def is_silent(signal: np.ndarray) -> bool:
    """Whether the signal is empty or never leaves half a step of 16-bit audio."""
    return len(signal) == 0 or bool(np.abs(signal).max() <= SILENCE)


def unit_power(signal: np.ndarray) -> np.ndarray:
    """The signal, not silent, at a root mean square of 1."""
    return signal / np.sqrt(np.mean(np.square(signal, dtype=np.float64)))


def amplitude(decibels: float | np.ndarray) -> float | np.ndarray:
    """The factor on samples or magnitudes that ``decibels`` stand for."""
    return 10 ** (decibels / 20)


def wrapped_cut(signal: np.ndarray, offset: int, length: int) -> np.ndarray:
    """(length,) samples of the signal from the offset on, starting over at its end."""
    if len(signal) == 0:
        return signal
    return np.take(signal, np.arange(offset, offset + length), mode="wrap")


def _draw_cut(
    noise: np.ndarray, start: int, stop: int, whole: int, rng: np.random.Generator
) -> np.ndarray | None:
    """The cut under samples start to stop of an utterance of ``whole`` samples, or None if silent.

    The offset is drawn for the whole utterance, so the parts of an utterance lie on successive
    parts of one cut, and share no noise unless the noise is shorter than the utterance.
    """
    if len(noise) == 0:
        return None
    span = len(noise) - whole + 1 if len(noise) >= whole else len(noise)
    for _ in range(_TRIES):
        cut = wrapped_cut(noise, int(rng.integers(span)) + start, stop - start)
        if not is_silent(cut):
            return cut
    return None


def _scaled(
    speech: np.ndarray, cut: np.ndarray, snr_db: float, speech_key: str, noise_key: str
) -> Mixture:
    ratio = np.sum(np.square(speech, dtype=np.float64)) / np.sum(np.square(cut, dtype=np.float64))
    gain = np.sqrt(ratio * 10 ** (-snr_db / 10))
    return Mixture(speech, (cut * gain).astype(np.float32), snr_db, speech_key, noise_key)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixtures(Sequence):
    """A set of mixtures; an item is mixed when it is asked for, and always comes out the same.

    Attributes:
        speech: the utterances.
        noise: the noises.
        pairs: (utterance, noise) indices, one row per mixture.
        snr_db: signal-to-noise ratio in dB, of each mixture over its own samples.
        seed: with the two keys of a mixture, decides its offset.
        part: which part of each utterance is used.
        held_back: fraction of each utterance that is not in ``train``.
        skipped: (key, reason) of utterances and noises left out.
    """

    speech: Loaded
    noise: Loaded
    pairs: tuple[tuple[int, int], ...]
    snr_db: float
    seed: int
    part: Part = "whole"
    held_back: float = 0.2
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return dataclasses.replace(self, pairs=self.pairs[index])
        utterance, noise = self.pairs[index]
        signal = self.speech.signals[utterance]
        start, stop = part_bounds(len(signal), self.part, self.held_back)
        speech_key = self.speech.recordings[utterance].key
        noise_key = self.noise.recordings[noise].key
        # crc32 is the same in every process.
        seeds = (zlib.crc32(key.encode()) for key in (speech_key, noise_key))
        rng = np.random.default_rng([self.seed, *seeds])
        cut = _draw_cut(self.noise.signals[noise], start, stop, len(signal), rng)
        if cut is None:
            raise ValueError(
                f"noise {noise_key!r} is silent wherever it was tried under {speech_key!r} "
                f"({_TRIES} places): leave it out or trim it"
            )
        return _scaled(signal[start:stop], cut, self.snr_db, speech_key, noise_key)

    @property
    def lengths(self) -> np.ndarray:
        """(len(self),) int64, samples of each mixture; mixes nothing."""
        bounds = [part_bounds(len(s), self.part, self.held_back) for s in self.speech.signals]
        return np.array([bounds[u][1] - bounds[u][0] for u, _ in self.pairs], np.int64)


def make_mixtures(
    speech: Loaded,
    noise: Loaded,
    snr_db: float,
    seed: int,
    part: Part = "whole",
    held_back: float = 0.2,
    max_mixtures: int | None = None,
) -> Mixtures:
    """Every utterance with every noise, or a balanced choice of them.

    The offset into a noise depends on the seed and the two keys alone: the same pair is the same
    mixture in any subset, and the ``train`` and ``closed`` parts of a pair lie on successive parts
    of one cut of the noise.

    Args:
        speech: utterances.
        noise: noises; the same ones serve every part.
        snr_db: signal-to-noise ratio in dB.
        seed: of the offsets and of the choice.
        part: ``whole`` utterances, their first 1 - held_back (``train``), or the rest
            (``closed``).
        held_back: fraction of each utterance that training does not touch.
        max_mixtures: at most so many; None is all. The noises take turns over the utterances in
            random order, and a smaller choice is part of a larger one.

    Returns:
        The mixtures; utterances whose part is silent and silent noises are in ``skipped``.

    Raises:
        ValueError: an argument is out of range, or nothing is left to mix.

    Source: [ICASSP20] section 4.1.
    """
    if part not in ("whole", "train", "closed"):
        raise ValueError(f"part is {part!r}: choose one of whole, train, closed")
    if not 0 <= held_back < 1 or (part == "closed" and held_back == 0):
        raise ValueError(f"held_back is {held_back}: give a fraction above 0 and below 1")
    if max_mixtures is not None and max_mixtures < 1:
        raise ValueError(f"max_mixtures is {max_mixtures}: give 1 or more, or None for all")
    bounds = [part_bounds(len(s), part, held_back) for s in speech.signals]
    parts = [s[slice(*b)] for s, b in zip(speech.signals, bounds, strict=True)]
    utterances, silent = _audible(parts, speech.recordings)
    noises, silent_noises = _audible(noise.signals, noise.recordings)
    if not utterances or not noises:
        raise ValueError(
            f"nothing to mix: {len(utterances)} of {len(speech)} utterances and {len(noises)} of "
            f"{len(noise)} noises are not silent"
        )
    pairs = _pairs(utterances, noises, seed, max_mixtures)
    skipped = (*silent, *silent_noises)
    return Mixtures(speech, noise, pairs, snr_db, seed, part, held_back, skipped)


def part_bounds(length: int, part: Part, held_back: float) -> tuple[int, int]:
    """First and last (exclusive) sample of a part of an utterance."""
    split = length - round(held_back * length)
    return {"whole": (0, length), "train": (0, split), "closed": (split, length)}[part]


def _audible(
    signals: Sequence[np.ndarray], recordings: Sequence[Recording]
) -> tuple[list[int], list[tuple[str, str]]]:
    """Indices of the signals that can be mixed, and (key, reason) of the others."""
    kept = [index for index, signal in enumerate(signals) if not is_silent(signal)]
    left_out = sorted(set(range(len(signals))) - set(kept))
    return kept, [(recordings[index].key, "silent in this part") for index in left_out]


def _pairs(
    utterances: list[int], noises: list[int], seed: int, max_mixtures: int | None
) -> tuple[tuple[int, int], ...]:
    """All pairs, or the first of an order in which noises take turns over shuffled utterances."""
    if max_mixtures is None or max_mixtures >= len(utterances) * len(noises):
        return tuple((u, n) for u in utterances for n in noises)
    order = np.random.default_rng(seed).permutation(utterances)
    chosen = (
        (int(utterance), noises[(position + turn) % len(noises)])
        for turn in range(len(noises))
        for position, utterance in enumerate(order)
    )
    return tuple(sorted(pair for pair, _ in zip(chosen, range(max_mixtures), strict=False)))

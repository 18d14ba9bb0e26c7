"""Synthetic noise for training mixtures: what few recordings do not hold.

Four families: the ten kinds of the synthetic corpus; invented noises, made in the same way from
numbers drawn at random; gusts, broadband noise of any tilt that swells and fades, as wind, water
and traffic do; and babble, several utterances at once.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from blsh_jax.corpora.mixing import Part, amplitude, is_silent, part_bounds, unit_power, wrapped_cut
from blsh_jax.corpora.recordings import Loaded, Recording
from blsh_jax.corpora.synthetic import invented_noise, synthetic_noise

_SECONDS = 10.0
_OF_A_KIND = 4  # noises of each kind of the synthetic corpus
_NUM_TENS = 8  # of invented noises, which come in tens
_NUM_GUSTS = 20
_NUM_BABBLES = 20
_TILT = (-3.0, 1.0)  # exponents of the frequency in a gust's magnitudes
_LEVELLING_HZ = 30.0  # below, a gust's magnitudes are level
_GUST_DEPTH = (0.0, 1.2)  # nepers, standard deviation of a gust's level
_GUST_RATE = (0.3, 8.0)  # turns of the level per second
_VOICES = (4, 11)
_VOICE_LEVEL_DB = (-8.0, 0.0)


def synthetic_noises(
    speech: Loaded, seed: int, part: Part, held_back: float, sample_rate: int
) -> Loaded:
    """A hundred and sixty noises: forty synthetic, eighty invented, twenty gusts, twenty babbles.

    Args:
        speech: utterances, for the babble.
        seed: decides everything.
        part: which part of each utterance is used.
        held_back: fraction of each utterance that is not in ``train``.
        sample_rate: in Hz.

    Returns:
        Signals of 10 s and of peak at most 1, each named by its family.

    Raises:
        ValueError: all utterances are silent.
    """
    rng = np.random.default_rng(seed)
    voices = [s[slice(*part_bounds(len(s), part, held_back))] for s in speech.signals]
    voices = [voice for voice in voices if not is_silent(voice)]
    if not voices:
        raise ValueError(
            f"all {len(speech)} utterances are silent where babble would be made of them: give "
            "speech that can be heard, or set synthetic_noise to 0"
        )
    length = round(_SECONDS * sample_rate)
    gusts = [_gust(length, sample_rate, rng) for _ in range(_NUM_GUSTS)]
    babbles = [_babble(voices, length, rng) for _ in range(_NUM_BABBLES)]
    synthetic, invented = _without_voices(seed, _SECONDS, sample_rate)
    named = [
        Recording(f"synthetic/{name}{number}", name=name)
        for name, signals in (("gust", gusts), ("babble", babbles))
        for number in range(len(signals))
    ]
    return Loaded(
        [*synthetic.signals, *invented.signals, *gusts, *babbles],
        (*synthetic.recordings, *invented.recordings, *named),
    )


@functools.lru_cache(maxsize=1)  # for runs that train several models
def _without_voices(seed: int, seconds: float, sample_rate: int) -> tuple[Loaded, Loaded]:
    """The synthetic and the invented noises."""
    synthetic_key, invented_key = jax.random.split(jax.random.key(seed))
    return (
        _several(synthetic_noise, synthetic_key, _OF_A_KIND, seconds, sample_rate),
        _several(invented_noise, invented_key, _NUM_TENS, seconds, sample_rate),
    )


def _several(
    make: Callable[[Array, float, int], Loaded],
    key: Array,
    count: int,
    seconds: float,
    sample_rate: int,
) -> Loaded:
    """``count`` times what ``make`` makes of a key, keys of recordings told apart by a number."""
    made = [make(k, seconds, sample_rate) for k in jax.random.split(key, count)]
    recordings = (
        dataclasses.replace(recording, key=f"synthetic/{recording.key}-{number}")
        for number, loaded in enumerate(made)
        for recording in loaded.recordings
    )
    return Loaded([signal for loaded in made for signal in loaded.signals], tuple(recordings))


def _gust(length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """White noise under a power of the frequency, its level wandering."""
    hertz = np.fft.rfftfreq(length, 1 / sample_rate)
    magnitudes = np.maximum(hertz, _LEVELLING_HZ) ** rng.uniform(*_TILT)
    signal = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * magnitudes, length)
    turns = int(_SECONDS * np.exp(rng.uniform(*np.log(_GUST_RATE)))) + 2
    level = np.interp(np.linspace(0, turns - 1, length), np.arange(turns), rng.normal(size=turns))
    return _peak_normalised(signal * np.exp(rng.uniform(*_GUST_DEPTH) * level))


def _babble(voices: list[np.ndarray], length: int, rng: np.random.Generator) -> np.ndarray:
    """Utterances from anywhere on, as many as talk in a crowd near by."""
    signal = np.zeros(length)
    for _ in range(rng.integers(_VOICES[0], _VOICES[1], endpoint=True)):
        voice = voices[rng.integers(len(voices))]
        gain = amplitude(rng.uniform(*_VOICE_LEVEL_DB))
        offset = int(rng.integers(len(voice)))
        signal += gain * wrapped_cut(unit_power(voice), offset, length)
    return _peak_normalised(signal)


def _peak_normalised(signal: np.ndarray) -> np.ndarray:
    return (0.9 * signal / np.abs(signal).max()).astype(np.float32)

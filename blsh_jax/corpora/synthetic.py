"""A corpus without files: speech-like utterances and ten non-stationary noises, from a PRNG key.

Speech follows the source-filter model: pulses at the pitch of a speaker and white noise, shaped by
resonances that move from sound to sound. A noise is notes, clicks and two bands of noise, each with
its own rhythm; what makes it birds or an engine is one row of numbers. It is for demonstrations
and tests; scores on it say nothing of scores on recordings.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax.corpora.recordings import Loaded, Recording

_HOP = 128
_WINDOW = 512
_TABLE = 512  # random numbers to a row; a rhythm starts over after so many beats
_VOICES = 4

# F1, F2, F3 in Hz of eight vowels, as an adult man speaks them.
_VOWELS = (
    (280.0, 2250.0, 2950.0),
    (400.0, 2000.0, 2550.0),
    (560.0, 1770.0, 2490.0),
    (680.0, 1660.0, 2430.0),
    (720.0, 1150.0, 2450.0),
    (560.0, 880.0, 2420.0),
    (320.0, 910.0, 2260.0),
    (490.0, 1370.0, 1720.0),
)
_NASAL = (260.0, 1250.0, 2200.0)
_UPPER_FORMANTS = (3500.0, 4600.0)
_BANDWIDTHS = (70.0, 100.0, 160.0, 250.0, 350.0)
# Probabilities and levels of the sounds between vowels.
_SOUNDS = ("pause", "fricative", "voiced_fricative", "plosive", "nasal")
_SOUND_ODDS = (0.12, 0.26, 0.12, 0.28, 0.22)
_SOUND_VOICING = (0.0, 0.0, 0.25, 0.0, 0.45)
_SOUND_FRICTION = (0.0, 0.30, 0.14, 0.55, 0.01)
_PLOSIVE = _SOUNDS.index("plosive")


class _Voice(NamedTuple):
    """What tells speakers apart; each (), or (num_speakers,) for several."""

    pitch: Array
    pitch_range: Array
    formant_scale: Array
    tilt: Array
    breath: Array
    pace: Array


class _Sounds(NamedTuple):
    """Successive sounds of an utterance, (M, ...): what the frames are filled from."""

    ends: Array
    durations: Array
    formants: Array
    voicing: Array
    friction: Array
    centre: Array
    width: Array
    plosive: Array


def synthetic_speech(
    key: Array,
    num_speakers: int,
    utterances_per_speaker: int,
    seconds: float = 2.5,
    sample_rate: int = 16_000,
) -> Loaded:
    """Speech-like utterances; women and men take turns among the speakers.

    Args:
        key: PRNG key; another key gives other speakers, under the same names.
        num_speakers: number of speakers, each with a pitch, vocal tract and pace of its own.
        utterances_per_speaker: utterances of each, all different.
        seconds: length of every utterance.
        sample_rate: in Hz.

    Returns:
        Signals of peak at most 1, with keys such as ``F00/U01``.

    Raises:
        ValueError: a number is below 1, or the utterances are shorter than 0.1 s.
    """
    _check_sizes(seconds, sample_rate, num_speakers, utterances_per_speaker)
    signals = _speech(
        key, num_speakers, utterances_per_speaker, round(seconds * sample_rate), sample_rate
    )
    speakers = [f"{'FM'[number % 2]}{number:02d}" for number in range(num_speakers)]
    recordings = tuple(
        Recording(f"{name}/U{utterance:02d}", None, name, name[0])  # type: ignore[arg-type]
        for name in speakers
        for utterance in range(utterances_per_speaker)
    )
    return Loaded(list(np.asarray(signals)), recordings)


def synthetic_noise(key: Array, seconds: float = 10.0, sample_rate: int = 16_000) -> Loaded:
    """Ten non-stationary noises, after the kinds that the paper trains on.

    Args:
        key: PRNG key.
        seconds: length of each noise.
        sample_rate: in Hz.

    Returns:
        Signals of peak at most 1, each named by its kind (``NOISE_NAMES``).

    Raises:
        ValueError: the noises are shorter than 0.1 s.

    Source: [ICASSP20] section 4.1 for the ten kinds.
    """
    recipes = jnp.array(list(_NUMBERS.values()), jnp.float32)[:, 2:].T
    recordings = tuple(Recording(name, None, name=name) for name in NOISE_NAMES)
    return _noises_of(key, recipes, recordings, seconds, sample_rate)


def invented_noise(key: Array, seconds: float = 10.0, sample_rate: int = 16_000) -> Loaded:
    """Ten noises of no kind: their notes, clicks and bands are drawn at random.

    Args:
        key: PRNG key.
        seconds: length of each noise.
        sample_rate: in Hz.

    Returns:
        Signals of peak at most 1, all named ``invented``, with keys such as ``invented0``.

    Raises:
        ValueError: the noises are shorter than 0.1 s.
    """
    recipe_key, noise_key = jax.random.split(key)
    recipes = _invented_recipes(recipe_key, len(NOISE_NAMES))
    names = (f"invented{number}" for number in range(len(recipes)))
    recordings = tuple(Recording(name, None, name="invented") for name in names)
    return _noises_of(noise_key, recipes, recordings, seconds, sample_rate)


def _noises_of(
    key: Array,
    recipes: Array,
    recordings: tuple[Recording, ...],
    seconds: float,
    sample_rate: int,
) -> Loaded:
    """Named noises, one for each of the recipes (R, numbers of a recipe)."""
    _check_sizes(seconds, sample_rate)
    signals = _noises(key, recipes, round(seconds * sample_rate), sample_rate)
    return Loaded(list(np.asarray(signals)), recordings)


def _check_sizes(seconds: float, sample_rate: int, *counts: int) -> None:
    if seconds < 0.1 or sample_rate < 4_000:
        raise ValueError(f"seconds {seconds}, sample_rate {sample_rate}: give 0.1 and 4000 or more")
    if min(counts, default=1) < 1:
        raise ValueError(f"num_speakers and utterances_per_speaker are {counts}: give 1 or more")


@functools.partial(
    jax.jit,
    static_argnames=("num_speakers", "utterances_per_speaker", "num_samples", "sample_rate"),
)
def _speech(
    key: Array, num_speakers: int, utterances_per_speaker: int, num_samples: int, sample_rate: int
) -> Array:
    """(num_speakers * utterances_per_speaker, num_samples) float32."""
    max_sounds = int(16 * num_samples / sample_rate) + 6
    count = num_speakers * utterances_per_speaker
    dice_shapes = (6, num_speakers), (count, 13, max(_TABLE, max_sounds)), (count, 2, num_samples)
    voice_dice, dice, white = _throw(key, dice_shapes)
    voices = _voices(voice_dice)
    voices = jax.tree.map(lambda x: jnp.repeat(x, utterances_per_speaker), voices)
    speak = functools.partial(_utterance, max_sounds=max_sounds, sample_rate=sample_rate)
    return jax.vmap(speak)(dice, _bell_shaped(white), voices)


def _throw(key: Array, shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
    """Uniform numbers in (0, 1) of each shape, from one call: every call costs compile time."""
    sizes = [math.prod(shape) for shape in shapes]
    dice = jnp.clip(jax.random.uniform(key, (sum(sizes),)), 1e-6, 1 - 1e-6)
    parts = jnp.split(dice, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _voices(u: Array) -> _Voice:
    """Women and men in turn, from uniform numbers (6, num_speakers)."""
    woman = jnp.arange(u.shape[1]) % 2 == 0
    return _Voice(
        pitch=jnp.where(woman, 165.0 + 85.0 * u[0], 85.0 + 65.0 * u[0]),
        pitch_range=0.08 + 0.14 * u[1],
        formant_scale=jnp.where(woman, 1.08 + 0.17 * u[2], 0.90 + 0.16 * u[2]),
        tilt=0.5 + 0.7 * u[3],
        breath=0.01 + 0.07 * u[4],
        pace=0.85 + 0.4 * u[5],
    )


def _utterance(
    dice: Array, white: Array, voice: _Voice, max_sounds: int, sample_rate: int
) -> Array:
    """(n,) one utterance of one speaker.

    Args:
        dice: (13, M) uniform in (0, 1).
        white: (2, n) white noise, for friction and for the room.
        voice: the speaker.
        max_sounds: enough sounds to fill the utterance, at most M.
        sample_rate: in Hz.
    """
    friction_noise, room = white
    num_samples = white.shape[1]
    sounds = _sounds(dice[:9, :max_sounds], voice)
    times = _frame_middles(num_samples).astype(jnp.float32) / sample_rate
    place = jnp.clip(jnp.searchsorted(sounds.ends, times), 0, max_sounds - 1)
    now = jax.tree.map(lambda x: x[place], sounds)
    progress = 1 - (now.ends - times) / now.durations
    hertz = _hertz(sample_rate)

    tract = _tract(_smooth(_smooth(now.formants, 5), 5), hertz, voice)
    voiced = tract * _smooth(now.voicing, 5)[:, None]
    closed = (progress < 0.55) | (progress > 0.85)
    friction = _smooth(jnp.where(now.plosive & closed, 0.0, now.friction), 2)
    unvoiced = _bell(hertz, now.centre, now.width) * friction[:, None] + voice.breath * voiced
    signal = _shape(_pulses(dice[9:12], voice, num_samples, sample_rate), voiced)
    signal += _shape(friction_noise, unvoiced)
    return _leveled(signal, 0.03 * 10 ** (0.6 * dice[12, 0])) + 2e-4 * room


def _sounds(dice: Array, voice: _Voice) -> _Sounds:
    """Sounds in order: consonants and pauses at even places, vowels at odd ones.

    Args:
        dice: (9, M) uniform in (0, 1).
        voice: the speaker.
    """
    vowel = jnp.arange(dice.shape[1]) % 2 == 1
    kind = jnp.searchsorted(jnp.cumsum(jnp.array(_SOUND_ODDS[:-1])), dice[0])
    durations = jnp.where(vowel, 0.08 + 0.14 * dice[1], 0.05 + 0.08 * dice[1]) / voice.pace
    targets = jnp.array(_VOWELS)[(dice[2] * len(_VOWELS)).astype(jnp.int32)]
    nasal = ~vowel & (kind == _SOUNDS.index("nasal"))
    targets = jnp.where(nasal[:, None], jnp.array(_NASAL)[None], targets)
    targets *= jnp.exp(0.06 * _bell_shaped(dice[3:6].T)) * voice.formant_scale
    level = 10 ** (0.25 * _bell_shaped(dice[6]) - 0.1)
    low, high = jnp.log(jnp.where(kind == _PLOSIVE, 900.0, 2300.0)), jnp.log(6500.0)
    return _Sounds(
        ends=jnp.cumsum(durations),
        durations=durations,
        formants=targets,
        voicing=jnp.where(vowel, 1.0, jnp.array(_SOUND_VOICING)[kind]) * level,
        friction=jnp.where(vowel, 0.0, jnp.array(_SOUND_FRICTION)[kind]) * level,
        centre=jnp.exp(low + (high - low) * dice[7]),
        width=0.25 + 0.65 * dice[8],
        plosive=~vowel & (kind == _PLOSIVE),
    )


def _hertz(sample_rate: int) -> Array:
    """(F,) frequencies of the short-time spectra that signals are shaped in."""
    return jnp.fft.rfftfreq(_WINDOW, 1 / sample_rate).astype(jnp.float32)


def _tract(formants: Array, hertz: Array, voice: _Voice) -> Array:
    """(T, F) gain of the vocal tract: a cascade of resonances, of unit power in each frame."""
    upper = jnp.array(_UPPER_FORMANTS) * voice.formant_scale
    upper = jnp.broadcast_to(upper, (formants.shape[0], len(_UPPER_FORMANTS)))
    poles = jnp.concatenate([formants, upper], axis=1)[:, :, None]
    ratio = hertz[None, None, :] / poles
    damping = jnp.array(_BANDWIDTHS)[None, :, None] / poles
    gain = jnp.sum(-0.5 * jnp.log((1 - ratio**2) ** 2 + (ratio * damping) ** 2), axis=1)
    # Stands for the resonances above the fifth, without which the cascade falls too fast.
    gain += jnp.log1p((hertz / 3500.0) ** 2)[None]
    gain += (1.0 - voice.tilt) * jnp.log1p(hertz / 500.0)[None]
    gain = jnp.exp(gain)
    return gain / jnp.sqrt(jnp.mean(gain**2, axis=1, keepdims=True))


def _pulses(dice: Array, voice: _Voice, num_samples: int, sample_rate: int) -> Array:
    """(num_samples,) pulses at a pitch that falls, wanders and jitters; dice is (3, M) uniform."""
    seconds = num_samples / sample_rate
    fall = jnp.linspace(0.1, -0.1, num_samples)
    wander = voice.pitch_range * _drift(dice[0], 4 * seconds, num_samples)
    jitter = 0.008 * _drift(dice[1], 90 * seconds, num_samples)
    pitch = voice.pitch * jnp.exp(fall + wander + jitter)
    shimmer = 1 + 0.1 * _drift(dice[2], 80 * seconds, num_samples)
    return _tone(pitch, (0.25 * sample_rate / voice.pitch) ** 2, sample_rate) * shimmer


def _tone(hertz: Array, brightness: Array | float, sample_rate: int) -> Array:
    """(n,) a periodic signal of unit power at a moving pitch.

    Its harmonics fall off like a Gaussian of width sqrt(brightness) harmonics; brightness far
    below 1 is a sinusoid.
    """
    phase = 2 * jnp.pi * jnp.mod(_running_sum(hertz / sample_rate), 1.0)
    wave = jnp.exp(brightness * (jnp.cos(phase) - 1))
    wave -= jnp.mean(wave)
    return wave / jnp.sqrt(jnp.mean(wave**2))


def _running_sum(values: Array) -> Array:
    """(n,) running sum, by rows of samples: it compiles faster than one long ``cumsum``."""
    size = values.shape[0]
    rows = jnp.pad(values, (0, -size % _HOP)).reshape(-1, _HOP)
    within = rows @ jnp.triu(jnp.ones((_HOP, _HOP), jnp.float32))
    totals = within[:, -1]
    return (within + (jnp.cumsum(totals) - totals)[:, None]).reshape(-1)[:size]


def _bell_shaped(uniform: Array) -> Array:
    """Uniform numbers in (0, 1) to logistic ones of unit variance, cheaper than normal ones."""
    return (math.sqrt(3) / math.pi) * (jnp.log(uniform) - jnp.log1p(-uniform))


def _drift(dice: Array, num_turns: float, num_samples: int) -> Array:
    """(num_samples,) a random line that turns ``num_turns`` times, its corners of unit variance.

    The corners come from dice (M,), uniform in (0, 1), over again if there are more turns.
    """
    corners = _bell_shaped(dice)
    place = jnp.linspace(0.0, num_turns, num_samples)
    left = jnp.floor(place)
    index, part = left.astype(jnp.int32), place - left
    return corners[index % len(dice)] * (1 - part) + corners[(index + 1) % len(dice)] * part


def _bell(hertz: Array, centre: Array, width: Array) -> Array:
    """(T, F) a band around ``centre`` Hz (T,), ``width`` octaves (T,) wide, of unit power."""
    octaves = jnp.log2(jnp.maximum(hertz, 20.0))[None] - jnp.log2(centre)[:, None]
    gain = jnp.exp(-0.5 * (octaves / width[:, None]) ** 2)
    return gain / jnp.sqrt(jnp.mean(gain**2, axis=1, keepdims=True))


def _smooth(frames: Array, width: int) -> Array:
    """Moving average over ``width`` frames, along the first axis."""
    left = (width - 1) // 2
    padding = [(left, width - 1 - left)] + [(0, 0)] * (frames.ndim - 1)
    padded = jnp.pad(frames, padding, mode="edge")
    length = frames.shape[0]
    return sum(padded[i : i + length] for i in range(width)) / width  # type: ignore[return-value]


def _shape(signal: Array, gain: Array) -> Array:
    """(n,) the signal (n,) with the gain (T, F) applied to its short-time spectra."""
    overlap = _WINDOW // _HOP
    num_frames = gain.shape[0]
    end = (num_frames + overlap - 1) * _HOP
    start = _WINDOW - _HOP
    padded = jnp.pad(signal, (start, end - start - signal.shape[0])).reshape(-1, _HOP)
    frames = jnp.concatenate([padded[i : i + num_frames] for i in range(overlap)], axis=1)
    window = jnp.asarray(np.hanning(_WINDOW + 1)[:-1] * 2 / overlap, jnp.float32)
    frames = jnp.fft.irfft(
        jnp.fft.rfft(frames * window[None]) * gain.astype(jnp.complex64), _WINDOW
    )
    pieces = frames.reshape(num_frames, overlap, _HOP)
    result = sum(
        jnp.pad(pieces[:, i], ((i, overlap - 1 - i), (0, 0))) for i in range(overlap)
    ).reshape(-1)  # type: ignore[union-attr]
    return result[start : start + signal.shape[0]]


def _leveled(signal: Array, level: Array | float) -> Array:
    """The signal at an RMS of ``level``, or as near to it as a peak of 0.95 allows."""
    signal = signal * (level / jnp.sqrt(jnp.mean(signal**2) + 1e-20))
    return signal * jnp.minimum(1.0, 0.95 / (jnp.max(jnp.abs(signal)) + 1e-20))


NOISE_NAMES = (
    *("birds", "casino", "cicadas", "keyboard", "chips"),
    *("frogs", "jungle", "machine_guns", "motorcycles", "ocean"),
)
# What makes a noise what it is: of each number the range that it is drawn from for an invented
# noise, and its values in the kinds of ``NOISE_NAMES``. Ranges are on a logarithmic scale, or even
# if they begin at 0; those of ``_high`` are multiples of ``_low``.
# fmt: off
_NUMBERS = {
    # Notes of four voices: level, pitch in Hz, notes per second, odds to sound, octaves up or down,
    # nepers of decay, width in harmonics, squared (see ``_tone``).
    "notes":          (  0.3,  1.5,    1,  0.8, 0.25,     0,     0,    1,  0.7,     0,    1,     0),
    "note_low":       (  100, 5000, 1800,  350, 3800,   500,   500,  180,  700,   500,   45,   500),
    "note_high":      (  1.2,    6, 6000, 2600, 4600,  2000,  2000,  650, 2600,  2000,  130,  2000),
    "note_rate":      (  0.5,   10,    5,    7,    1,     3,     3,  2.4,  1.6,     3,  0.7,     3),
    "note_odds":      (  0.2, 0.95, 0.55,  0.8,  0.9,   0.5,   0.5, 0.65,  0.5,   0.5, 0.95,   0.5),
    "note_sweep":     (    0,  1.2,  0.7,    0,    0,     0,     0, 0.15,    1,     0,  0.8,     0),
    "note_decay":     (  0.5,    5,    1,  3.5,  0.5,     2,     2,  0.8,  0.6,     2,  0.8,     2),
    "brightness":     ( 0.03,   15,  0.3,  1.5,  0.1,  0.05,  0.05,   12,  0.8,  0.05,  160,  0.05),
    # Trills (octaves deep) and beats of the amplitude of notes, per second.
    "trill_rate":     (    3,   30,   22,    6,   10,    10,    10,   10,    7,    10,    9,    10),
    "trill_depth":    ( 0.01,  0.2, 0.12, 0.01,    0,     0,     0,    0, 0.06,     0, 0.01,     0),
    "pulse_rate":     (    4,   40,   16,   10,   34,    10,    10,   27,   10,    10,   13,    10),
    "pulse_depth":    (  0.2,    1,  0.5,    0,  0.9,     0,     0, 0.95,    0,     0,  0.3,     0),
    # Clicks: level, number per second, seconds of decay, centres in Hz, octaves wide, and episodes
    # per second that they come in (0 is always).
    "clicks":         (  0.3,  1.5,    0,  0.5,    0,     1,     1,    0, 0.35,     1,    0,  0.25),
    "click_rate":     (    1,   50,    8,    9,    8,   7.5,    38,    8,   13,    11,    8,    45),
    "click_decay":    (0.002, 0.06, 0.02, 0.03, 0.02, 0.018, 0.006, 0.02, 0.03, 0.035, 0.02, 0.004),
    "click_low":      (  200, 4000, 1000, 2500, 1000,   700,  1200, 1000, 2800,   350, 1000,  2500),
    "click_high":     (  1.2,    8, 5000, 6500, 5000,  4500,  6500, 5000, 3600,   900, 5000,  6500),
    "click_width":    (  0.2,    2,    1,  0.4,    1,   1.1,   0.8,    1,  0.2,   1.6,    1,     1),
    "click_episodes": (  0.3,    3,    0,  0.5,    0,   1.3,   2.3,    0,  0.8,   1.2,    0,     0),
    # A band of noise that beats and swells: level, centre in Hz, octaves wide, beats per second and
    # their depth, swells per second and their depth in nepers.
    "band":           ( 0.03,    1, 0.12,  0.6,    1,   0.1,  0.15,  0.3,  0.6,  0.12, 0.35,     1),
    "band_centre":    (   80, 6000, 2500,  700, 4800,   300,  3500, 2600, 5200,   200,  900,  1100),
    "band_width":     (  0.2,  2.5,  1.2,  1.2, 0.25,   1.5,   0.8, 0.35,  0.4,   1.4,  1.3,   1.4),
    "band_beat":      (  0.5,   20,    5,    4,   17,     5,     9,   12,    8,     5,   13,   0.9),
    "band_depth":     (    0, 0.95,    0,  0.7, 0.85,     0,   0.8,  0.8,  0.6,     0,  0.4,   0.2),
    "swell":          (  0.1,    1,  0.3,  0.3,  0.5,   0.3,     1,  0.3,  0.3,   0.6,  0.4,  0.35),
    "swell_depth":    (    0,  1.3,  0.5,  0.3,  0.8,   0.1,   0.8,  0.4,  0.5,     1,  0.8,   1.3),
    # A second band: level, centre in Hz, octaves wide.
    "second":         ( 0.02,    1, 0.15,    0, 0.35,  0.03,  0.08, 0.08,  0.5,  0.04,  0.3,  0.35),
    "second_centre":  (   60, 5000,  250,  300, 1600,  2000,   500,  900,  400,  1500,  140,   250),
    "second_width":   (  0.5,    3,  1.3,  1.5,  0.9,   1.5,   1.5,  1.5,  1.2,   1.5,    1,   1.4),
}
# fmt: on
# Probabilities of what not every invented noise has; without, the number is 0.
_ODDS = {"notes": 0.4} | dict.fromkeys(
    ("note_sweep", "trill_depth", "pulse_depth", "clicks", "click_episodes", "band_depth"), 0.5
)
_HIGHEST = {"note": 7000.0, "click": 7500.0}  # Hz


def _invented_recipes(key: Array, count: int) -> Array:
    """(count, numbers of a recipe)."""
    dice = jax.random.uniform(key, (2, len(_NUMBERS), count))
    drawn = {}
    for (name, (low, high, *_)), place, chance in zip(_NUMBERS.items(), *dice, strict=True):
        value = low * (high / low) ** place if low else high * place
        drawn[name] = jnp.where(chance < _ODDS.get(name, 1.0), value, 0.0)
    for name, highest in _HIGHEST.items():
        upper = drawn[f"{name}_low"] * drawn[f"{name}_high"]
        drawn[f"{name}_high"] = jnp.minimum(upper, highest)
    return jnp.stack(list(drawn.values()), axis=1)


@functools.partial(jax.jit, static_argnames=("num_samples", "sample_rate"))
def _noises(key: Array, recipes: Array, num_samples: int, sample_rate: int) -> Array:
    """(R, num_samples) float32, a noise for each of the recipes (R, numbers of a recipe)."""
    count = len(recipes)
    rows = (count, 6 * _VOICES + 5 + 3, _TABLE)
    dice, white = _throw(key, (rows, (count, 4, num_samples)))
    make = functools.partial(_noise, sample_rate=sample_rate)
    return jax.vmap(make)(dice, _bell_shaped(white), dict(zip(_NUMBERS, recipes.T, strict=True)))


def _noise(dice: Array, white: Array, recipe: dict[str, Array], sample_rate: int) -> Array:
    """(n,) a noise of one kind.

    Args:
        dice: (6 * voices + 5 + 3, M) uniform in (0, 1), for notes, clicks and bands.
        white: (4, n) white noise.
        recipe: the kind.
        sample_rate: in Hz.
    """
    play = functools.partial(_notes, recipe=recipe, n=white.shape[1], sample_rate=sample_rate)
    note_dice, click_dice, band_dice = jnp.split(dice, [6 * _VOICES, 6 * _VOICES + 5])
    voices = jax.vmap(play)(note_dice.reshape(_VOICES, 6, _TABLE))
    signal = recipe["notes"] * jnp.sum(voices, axis=0)
    signal += recipe["clicks"] * _clicks(click_dice, white[0], recipe, sample_rate)
    signal += _bands(band_dice, white[1:3], recipe, sample_rate)
    return _leveled(signal, 0.1) + 5e-4 * white[3]


def _clock(dice: Array, rate: Array | float, n: int, sample_rate: int) -> tuple[Array, Array]:
    """An uneven rhythm: the number (n,) int32 of the beat, and the progress (n,) within it."""
    pace = jnp.exp(0.45 * _drift(dice, 3 * n / sample_rate, n))
    beats = _running_sum(pace * (rate / sample_rate)) + 7 * dice[-1]
    whole = jnp.floor(beats)
    return jnp.mod(whole.astype(jnp.int32), _TABLE), beats - whole


def _notes(dice: Array, recipe: dict[str, Array], n: int, sample_rate: int) -> Array:
    """(n,) one voice, a note per beat or a rest; dice is (6, M) uniform."""
    beat, progress = _clock(dice[0], recipe["note_rate"], n, sample_rate)
    pitch, sweep, rest, length, level = dice[1:, beat]
    seconds = jnp.arange(n, dtype=jnp.float32) / sample_rate
    octaves = recipe["note_sweep"] * (2 * sweep - 1) * (progress - 0.5)
    octaves += recipe["trill_depth"] * jnp.sin(2 * jnp.pi * recipe["trill_rate"] * seconds)
    low, high = jnp.log2(recipe["note_low"]), jnp.log2(recipe["note_high"])
    hertz = 2.0 ** (low + (high - low) * pitch + octaves)
    # Notes last between 0.4 and 1 of a beat, and begin and end within a tenth of it.
    end = 0.4 + 0.6 * length
    edges = jnp.clip(10 * progress, 0.0, 1.0) * jnp.clip(10 * (end - progress), 0.0, 1.0)
    envelope = edges * jnp.exp(-recipe["note_decay"] * progress)
    envelope = jnp.where(rest < recipe["note_odds"], envelope, 0.0)
    pulse = 0.5 + 0.5 * jnp.cos(2 * jnp.pi * recipe["pulse_rate"] * (1 + 0.3 * pitch) * seconds)
    envelope *= (1 - recipe["pulse_depth"] * pulse) * 10 ** (level - 0.5)
    return _tone(hertz, recipe["brightness"], sample_rate) * envelope


def _clicks(dice: Array, white: Array, recipe: dict[str, Array], sample_rate: int) -> Array:
    """(n,) bursts of the white noise (n,) that die away; dice is (5, M) uniform."""
    n = white.shape[0]
    beat, progress = _clock(dice[0], recipe["click_rate"], n, sample_rate)
    episode, _ = _clock(dice[1], recipe["click_episodes"], n, sample_rate)
    envelope = jnp.exp(-progress / (recipe["click_rate"] * recipe["click_decay"]))
    envelope *= 10 ** (0.9 * dice[2, beat] - 0.9)
    active = (recipe["click_episodes"] == 0) | (dice[3, episode] < 0.65)
    envelope *= jnp.where(active, 1.0, 0.02)
    low, high = jnp.log(recipe["click_low"]), jnp.log(recipe["click_high"])
    centre = jnp.exp(low + (high - low) * dice[4, beat[_frame_middles(n)]])
    gain = _bell(_hertz(sample_rate), centre, recipe["click_width"] * jnp.ones_like(centre))
    return 3 * _shape(white * envelope, gain)


def _bands(dice: Array, white: Array, recipe: dict[str, Array], sample_rate: int) -> Array:
    """(n,) two bands of the white noises (2, n); the first beats, and brightens as it swells."""
    n = white.shape[1]
    seconds = n / sample_rate
    clock = _running_sum(jnp.exp(0.4 * _drift(dice[0], seconds, n))) / sample_rate
    swell = recipe["swell_depth"] * jnp.sin(2 * jnp.pi * recipe["swell"] * clock)
    beats = _running_sum(jnp.exp(0.2 * _drift(dice[1], 8 * seconds, n))) / sample_rate
    beat = 0.5 + 0.5 * jnp.cos(2 * jnp.pi * recipe["band_beat"] * beats)
    envelope = jnp.exp(swell) * (1 - recipe["band_depth"] * beat)
    flutter = jnp.exp(0.3 * _drift(dice[2], 6 * seconds, n))
    centre = recipe["band_centre"] * jnp.exp(0.4 * swell[_frame_middles(n)])
    same, hertz = jnp.ones_like(centre), _hertz(sample_rate)
    first = _bell(hertz, centre, recipe["band_width"] * same)
    second = _bell(hertz, recipe["second_centre"] * same, recipe["second_width"] * same)
    result = recipe["band"] * _shape(white[0] * envelope, first)
    return result + recipe["second"] * _shape(white[1] * flutter, second)


def _frame_middles(n: int) -> Array:
    """(T,) int32 the sample in the middle of each frame that ``_shape`` cuts."""
    num_frames = -(-n // _HOP) + _WINDOW // _HOP - 1
    starts = jnp.arange(num_frames) * _HOP - (_WINDOW - _HOP)
    return jnp.clip(starts + _WINDOW // 2, 0, n - 1)

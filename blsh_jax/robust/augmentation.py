"""Augmentation: mixtures of many kinds from few recordings, for noise no dictionary has heard.

A noise is played faster or slower, coloured by a random equalizer, and sometimes joined by a second
one; synthetic noises may take turns with the recordings. The speech is coloured half as strongly,
and every mixture has an SNR of its own. Speech may be that of a room, and a mixture that of a
telephone, or clipped. Some mixtures stay as the recordings are, as published. Levels are not
varied: all features are ratios.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import soxr

from blsh_jax.config import AugmentationConfig, TrainConfig
from blsh_jax.corpora.mixing import (
    Mixture,
    Mixtures,
    Part,
    amplitude,
    is_silent,
    make_mixtures,
    mix,
    part_bounds,
    unit_power,
    wrapped_cut,
)
from blsh_jax.corpora.recordings import Loaded
from blsh_jax.robust.synthetic_noise import synthetic_noises

_Band = tuple[float, float]  # Hz
_Rng = np.random.Generator

_TRIES = 32
_SECOND_LEVEL_DB = (-10.0, 0.0)  # of a second noise, relative to the first
_ALONE_DB = 60.0  # by which speech or noise that is alone is above the other
# Where an equalizer's gains lie, as fractions of half the sample rate.
_EQUALIZER_POINTS = np.r_[0, np.geomspace(0.01, 1, 9)]
_ROOM_SECONDS = (0.2, 0.8)  # in which reverberation falls by 60 dB
_DIRECT_DB = (-3.0, 12.0)  # direct sound over reverberation
_FIRST_REFLECTION = 0.005  # seconds after the direct sound
# 8 kHz, telephone, 11 kHz, and wide-band telephone or the low rates of codecs.
_BANDS_HZ = ((0.0, 4000.0), (300.0, 3400.0), (0.0, 5500.0), (50.0, 7000.0))
_EVERYTHING_HZ = (0.0, np.inf)
_EDGE = 1.05  # a band's edges are so wide, as a ratio
_CLIPPING_DB = (-15.0, -3.0)  # the limit, relative to the mixture's peak


@dataclasses.dataclass(frozen=True, eq=False)
class AugmentedMixtures(Sequence):
    """Mixtures drawn at random; an item is made when asked for, and always comes out the same.

    Attributes:
        speech: the utterances, which take turns.
        noise: the noises.
        synthetic: noises that are not recordings, for ``config.synthetic_noise`` of the draws.
        config: how many, how long, how augmented.
        seed: with the index of an item, decides everything about it.
        part: which part of each utterance is used.
        held_back: fraction of each utterance that is not in ``train``.
        sample_rate: of all recordings, in Hz.
        snr_db: signal-to-noise ratio of mixtures that are not augmented, in dB; of one that is
            clipped, that before.
        skipped: (key, reason) of recordings left out: none, as silent cuts are drawn again.
        chosen: indices of the items that this is a part of, or None for all; of a slice.
    """

    speech: Loaded
    noise: Loaded
    synthetic: Loaded
    config: AugmentationConfig
    seed: int
    part: Part = "whole"
    held_back: float = 0.2
    sample_rate: int = 16_000
    snr_db: float = 0.0
    skipped: tuple[tuple[str, str], ...] = ()
    chosen: range | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def _chosen(self) -> range:
        return range(self.config.num_mixtures) if self.chosen is None else self.chosen

    @property
    def lengths(self) -> np.ndarray:
        """(len(self),) int64, samples of each mixture, all the same."""
        return np.full(len(self), round(self.config.mixture_seconds * self.sample_rate), np.int64)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return dataclasses.replace(self, chosen=self._chosen[index])
        if not 0 <= index < len(self):
            raise IndexError(f"mixture {index} of {len(self)}")
        length, index = int(self.lengths[index]), self._chosen[index]
        rng = np.random.default_rng([self.seed, index])
        augmented = rng.random() >= self.config.unaugmented
        config = self.config if augmented else _without_augmentation(self.config, self.snr_db)
        band = _EVERYTHING_HZ
        if _happens(config.band_limited, rng):
            band = _BANDS_HZ[rng.integers(len(_BANDS_HZ))]
        speech, speech_key = _draw(
            lambda attempt: self._speech(index + attempt, length, band, config, rng)
        )
        fold = index % config.noise_folds
        noise, noise_key = self._noise(fold, length, band, config, rng)
        if rng.random() < config.second_noise:
            second, second_key = self._noise(fold, length, band, config, rng)
            noise = noise + amplitude(rng.uniform(*_SECOND_LEVEL_DB)) * second
            noise_key += f"+{second_key}"
        snr_db = rng.uniform(config.min_snr_db, config.max_snr_db)
        if _happens(config.alone, rng):
            snr_db = float(rng.choice([-_ALONE_DB, _ALONE_DB]))
        mixture = mix(speech, noise, snr_db, 0, speech_key, noise_key)
        if _happens(config.clipped, rng):
            mixture = _clipped(mixture, amplitude(rng.uniform(*_CLIPPING_DB)))
        return mixture

    def _noise(
        self, fold: int, length: int, band: _Band, config: AugmentationConfig, rng: _Rng
    ) -> tuple[np.ndarray, str]:
        """A noise of root mean square 1, and its key."""
        noise, key = _draw(lambda _: self._cut_of_noise(fold, length, band, config, rng))
        return unit_power(noise), key

    def _speech(
        self, index: int, length: int, band: _Band, config: AugmentationConfig, rng: _Rng
    ) -> tuple[np.ndarray, str]:
        """A cut of an utterance."""
        index %= len(self.speech.signals)
        signal, recording = self.speech.signals[index], self.speech.recordings[index]
        signal = signal[slice(*part_bounds(len(signal), self.part, self.held_back))]
        found = _random_cut(signal, length, rng)
        if _happens(config.reverberant, rng):
            found = _reverberant(found, self.sample_rate, rng)
        found = _coloured(found, config.equalizer_db / 2, rng)
        return _within(found, band, self.sample_rate), recording.key

    def _cut_of_noise(
        self, fold: int, length: int, band: _Band, config: AugmentationConfig, rng: _Rng
    ) -> tuple[np.ndarray, str]:
        """A cut of a noise, its pitch and tempo changed together."""
        noise = self.synthetic if rng.random() < config.synthetic_noise else self.noise
        in_fold = len(range(fold, len(noise.signals), config.noise_folds))
        index = fold + config.noise_folds * int(rng.integers(in_fold))
        signal, recording = noise.signals[index], noise.recordings[index]
        speed = config.max_speed ** rng.uniform(-1, 1)
        found = _random_cut(signal, round(length * speed) + 1, rng)
        found = wrapped_cut(soxr.resample(found, speed, 1.0), 0, length)
        found = _coloured(found, config.equalizer_db, rng)
        return _within(found, band, self.sample_rate), recording.key


def training_mixtures(
    speech: Loaded, noise: Loaded, config: TrainConfig, part: Part = "train"
) -> Mixtures | AugmentedMixtures:
    """The mixtures that a configuration trains on.

    Args:
        speech: utterances.
        noise: noises.
        config: augmentation, or the published SNR; held-back part, rate and seed.
        part: which part of each utterance is used.

    Returns:
        Random mixtures if ``config.augmentation`` asks for any; else every utterance with every
        noise.

    Raises:
        ValueError: as ``make_mixtures``, or a fold of noises is empty.
    """
    if len(noise) < config.augmentation.noise_folds:
        raise ValueError(
            f"{len(noise)} noises cannot be cut into {config.augmentation.noise_folds} folds: give "
            "more noises"
        )
    if config.augmentation.num_mixtures == 0:
        return make_mixtures(
            speech, noise, config.snr_db, config.seed, part=part, held_back=config.held_back
        )
    rate, seed, held_back = config.separation.stft.sample_rate, config.seed, config.held_back
    synthetic = Loaded([], ())
    if config.augmentation.synthetic_noise:
        synthetic = synthetic_noises(speech, seed, part, held_back, rate)
    return AugmentedMixtures(
        speech, noise, synthetic, config.augmentation, seed, part, held_back, rate, config.snr_db
    )


def _without_augmentation(config: AugmentationConfig, snr_db: float) -> AugmentationConfig:
    return dataclasses.replace(
        config,
        min_snr_db=snr_db,
        max_snr_db=snr_db,
        max_speed=1.0,
        equalizer_db=0.0,
        second_noise=0.0,
        synthetic_noise=0.0,
        reverberant=0.0,
        band_limited=0.0,
        clipped=0.0,
    )


def _happens(probability: float, rng: _Rng) -> bool:
    """Drawn only where it may, so that what never happens changes nothing that is drawn later."""
    return probability > 0 and rng.random() < probability


def _draw(make: Callable[[int], tuple[np.ndarray, str]]) -> tuple[np.ndarray, str]:
    """What ``make`` gives for 0, 1, …: the first that is not silent."""
    for attempt in range(_TRIES):
        signal, key = make(attempt)
        if not is_silent(signal):
            return signal, key
    raise ValueError(
        f"{key!r} and others are silent wherever they were tried ({_TRIES} places): leave them "
        "out or trim them"
    )


def _random_cut(signal: np.ndarray, length: int, rng: _Rng) -> np.ndarray:
    """(length,) samples in one piece, or, of a shorter signal, from anywhere on and around."""
    span = len(signal) - length + 1 if len(signal) >= length else max(1, len(signal))
    return wrapped_cut(signal, int(rng.integers(span)), length)


def _reverberant(signal: np.ndarray, rate: int, rng: _Rng) -> np.ndarray:
    """The signal in a room: itself, then noise that dies away, both at the levels drawn."""
    seconds = rng.uniform(*_ROOM_SECONDS)
    times = np.arange(1, round(seconds * rate)) / rate
    tail = rng.standard_normal(len(times)) * amplitude(-60 * times / seconds)
    tail = np.where(times < _FIRST_REFLECTION, 0, tail)
    tail *= amplitude(-rng.uniform(*_DIRECT_DB)) / np.sqrt(np.sum(tail**2))
    size = len(signal) + len(tail)
    spectrum = np.fft.rfft(signal, size) * np.fft.rfft(np.r_[1, tail], size)
    return np.fft.irfft(spectrum, size)[: len(signal)].astype(np.float32)


def _within(signal: np.ndarray, band: _Band, rate: int) -> np.ndarray:
    """What the signal has in a band."""
    if band == _EVERYTHING_HZ:
        return signal
    low, high = band
    spectrum, hertz = np.fft.rfft(signal), np.fft.rfftfreq(len(signal), 1 / rate)
    gains = np.interp(hertz, [low / _EDGE, low, high, high * _EDGE], [0, 1, 1, 0])
    return np.fft.irfft(gains * spectrum, len(signal)).astype(np.float32)


def _clipped(mixture: Mixture, part: float) -> Mixture:
    """The mixture, clipped at a part of its peak; its speech is what is within the limit."""
    heard = mixture.mixture
    limit = np.float32(part * np.abs(heard).max())
    speech = np.clip(mixture.speech, -limit, limit)
    return mixture._replace(speech=speech, noise=np.clip(heard, -limit, limit) - speech)


def _coloured(signal: np.ndarray, gain_db: float, rng: _Rng) -> np.ndarray:
    """The signal under gains of up to ``gain_db``, drawn at a few frequencies, linear between."""
    gains = rng.uniform(-gain_db, gain_db, len(_EQUALIZER_POINTS))
    spectrum = np.fft.rfft(signal)
    frequencies = np.linspace(0, 1, len(spectrum))
    spectrum *= amplitude(np.interp(frequencies, _EQUALIZER_POINTS, gains))
    return np.fft.irfft(spectrum, len(signal)).astype(np.float32)

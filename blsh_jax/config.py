"""Every setting of the method, as frozen dataclasses. The only place of defaults.

Derived values (bins, seconds per frame) are properties of the setting that they follow from, never
second settings. ``to_dict`` and ``from_dict`` are what model files and records hold.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from reprlib import repr as short
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

_Config = TypeVar("_Config")


def _check(
    config: Any,
    positive: Iterable[str] = (),
    not_negative: Iterable[str] = (),
    probabilities: Iterable[str] = (),
    at_most: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Raise ValueError for a setting of another type, or for a number out of its range."""
    for field in dataclasses.fields(config):
        advice = _advice(field.type, getattr(config, field.name))
        if advice:
            raise ValueError(f"{field.name} is {short(getattr(config, field.name))}: {advice}")
    ranges = (
        (positive, lambda value: value > 0, "it must be positive"),
        (not_negative, lambda value: value >= 0, "give 0 or more"),
        (probabilities, lambda value: 0 <= value <= 1, "give a probability"),
    )
    for names, is_within, advice in ranges:
        for name in names:
            if not is_within(getattr(config, name)):
                raise ValueError(f"{name} is {short(getattr(config, name))}: {advice}")
    for name, limit in at_most.items():
        if getattr(config, name) > limit:
            raise ValueError(f"{name} is {short(getattr(config, name))}: give {limit} at most")


def _advice(kind: Any, value: Any) -> str:
    """What to give in place of a value that is not of the type of its setting, or nothing."""
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        return "" if value in allowed else f"choose one of {', '.join(allowed)}"
    if kind is int:
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        return "" if is_whole else "give a whole number"
    if kind is float:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        is_finite = is_number and abs(value) <= sys.float_info.max
        return "" if is_finite else "give a finite number"
    return "" if isinstance(value, kind) else f"give the settings of {kind.__name__}"


@dataclasses.dataclass(frozen=True)
class StftConfig:
    """Short-time Fourier transform ([ICASSP20] section 4.1: Hann 1024, hop 256, 16 kHz).

    Attributes:
        sample_rate: of recordings, which are resampled to it, in Hz, 1 kHz to 768 kHz.
        window_length: samples of the Hann window, 2 to 64 hops, at most 16,384 and a second.
        hop_length: samples from one frame to the next; at most 2,000 frames make a second.
    """

    sample_rate: int = 16_000
    window_length: int = 1024
    hop_length: int = 256

    def __post_init__(self):
        largest = {"sample_rate": 768_000, "window_length": 16_384}
        _check(self, ("sample_rate", "window_length", "hop_length"), at_most=largest)
        hops, left_over = divmod(self.window_length, self.hop_length)
        if left_over or not 2 <= hops <= 64:
            raise ValueError(
                f"window_length {self.window_length} must be a multiple (2 to 64) of "
                f"hop_length {self.hop_length}"
            )
        if self.sample_rate < 1000 or self.window_length > self.sample_rate:
            raise ValueError(
                f"sample_rate is {self.sample_rate}: give 1000 or more, and no less than "
                f"window_length {self.window_length}"
            )
        if self.frames_per_second > 2000:
            raise ValueError(
                f"hop_length is {self.hop_length}: give {math.ceil(self.sample_rate / 2000)} or "
                f"more at a sample_rate of {self.sample_rate}"
            )

    @property
    def num_bins(self) -> int:
        """F, the number of frequency bins of a frame."""
        return self.window_length // 2 + 1

    @property
    def frames_per_second(self) -> float:
        """Frames in a second of audio."""
        return self.sample_rate / self.hop_length


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """What the search compares: one unit vector per frame.

    Attributes:
        kind: ``magnitude`` (D = F), ``mel`` or ``log_mel`` (D = num_mels).
        num_mels: number of mel bands, for the two mel kinds.
        context: number of frames side by side, odd; the frame itself is in the middle.
        levels: mel bands whose level above the noise floor stands beside the spectrum, at the same
            norm; 0 compares spectra alone.
        floor_frames: the noise floor of a band is its least magnitude in so many frames, the frame
            itself the last.
        voicing: mel bands whose voicing, how far they are the comb of a voice, stands beside
            (``blsh_jax.robust.voicing``); 0 does without, as published.
        pre_roll_frames: the start of a recording is heard once more before it, backwards, for so
            many frames, so that noise floors and noise tracks know the noise from the first sample
            on (``robust.pre_roll``); 0 begins in silence, as published.
    """

    kind: Literal["magnitude", "mel", "log_mel"] = "magnitude"
    num_mels: int = 128
    context: int = 1
    levels: int = 0
    floor_frames: int = 64
    voicing: int = 0
    pre_roll_frames: int = 0

    def __post_init__(self):
        bands = dict.fromkeys(("num_mels", "levels", "voicing"), 1024)
        past = dict.fromkeys(("floor_frames", "pre_roll_frames"), 4096)
        _check(
            self,
            positive=("num_mels", "floor_frames"),
            not_negative=("levels", "voicing", "pre_roll_frames"),
            at_most=bands | past | {"context": 255},
        )
        if self.context < 1 or self.context % 2 == 0:
            raise ValueError(f"context is {self.context}: give an odd number of frames, 1 or more")


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Learning the projections ([ICASSP20] Algorithm 2; [TASLP22] for the kernel and the metrics).

    Attributes:
        num_bits: L, the length of a code.
        block_size: B, frames per block; similarities are compared within blocks only.
        target: the self-similarity that codes should reproduce: ``rbf`` or ``cosine``.
        sigma2: width of the RBF target exp((cos - 1) / sigma2).
        metric: the pair metric that a projection is fitted under, ``squared_error`` or
            ``cross_entropy``; error rates and pair weights always use squared error.
        mode: ``published`` (the authors' optimiser and schedule) or ``fast``.
        slope: what the squared error is differentiated as, the ``parabola`` that it is or the
            ``line`` through its two values; ``mode``: as the authors do in the published mode, the
            line in the fast one, which it serves better (docs/findings.md).
        learning_rate: Adam step size of the published mode.
        adam_b1: Adam's first decay rate of the published mode.
        adam_b2: Adam's second decay rate of the published mode.
        min_epochs: passes over the blocks before the published mode may stop.
        max_epochs: passes over the blocks at most, published mode.
        blocks_per_step: blocks whose gradients make one optimiser step (the authors take 1); a
            mesh of several devices needs a multiple of their number.
        fast_candidates: R, hyperplanes that the fast mode fits side by side; the best is kept.
        fast_steps: optimiser steps per bit, fast mode.
        fast_learning_rate: first Adam step size of the fast mode, as a length in whitened
            coordinates, where candidates have length 1.
        ridge: multiple of the mean variance that is added to all variances in whitening, fast mode.
            Small values reach lower objectives, and are needed where much of the variance has
            nothing to do with a target of its own; large ones make codes of spectra that separate
            better.
    """

    num_bits: int = 150
    block_size: int = 1000
    target: Literal["rbf", "cosine"] = "rbf"
    sigma2: float = 0.3
    metric: Literal["squared_error", "cross_entropy"] = "squared_error"
    mode: Literal["fast", "published"] = "fast"
    slope: Literal["mode", "line", "parabola"] = "mode"
    learning_rate: float = 1e-4
    adam_b1: float = 0.95
    adam_b2: float = 0.98
    min_epochs: int = 20
    max_epochs: int = 200
    blocks_per_step: int = 1
    fast_candidates: int = 32
    fast_steps: int = 150
    fast_learning_rate: float = 0.1
    ridge: float = 10.0

    def __post_init__(self):
        _check(
            self,
            positive=(
                *("num_bits", "block_size", "sigma2", "learning_rate", "max_epochs", "ridge"),
                *("blocks_per_step", "fast_candidates", "fast_steps", "fast_learning_rate"),
            ),
        )

    @property
    def parabola(self) -> bool:
        """Whether the squared error is differentiated as it is."""
        return (self.mode == "published") if self.slope == "mode" else self.slope == "parabola"


@dataclasses.dataclass(frozen=True)
class FineTuningConfig:
    """Fine-tuning: all hyperplanes moved together, once they are learned.

    Source: ``blsh_jax.robust.fine_tuning``.

    Attributes:
        fine_tuning_steps: optimiser steps; 0 leaves the hyperplanes as they were learned, as
            published.
        fine_tuning_frames: they are moved on at most so many of the frames.
        fine_tuning_queries: frames of a fine-tuning step that look for neighbours.
        fine_tuning_candidates: frames of a fine-tuning step among which the queries look for them.
        fine_tuning_learning_rate: first Adam step size of fine-tuning, where features and
            activations have unit variance.
    """

    fine_tuning_steps: int = 0
    fine_tuning_frames: int = 200_000
    fine_tuning_queries: int = 512
    fine_tuning_candidates: int = 4096
    fine_tuning_learning_rate: float = 0.003

    def __post_init__(self):
        sizes = (f"fine_tuning_{name}" for name in ("frames", "queries", "candidates"))
        _check(self, (*sizes, "fine_tuning_learning_rate"), ("fine_tuning_steps",))


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """A network that predicts masks, and its training ([ICASSP20] section 4.2, the baselines).

    Attributes:
        kind: ``fc``, fully connected, frame by frame, or ``blstm``, bidirectional LSTM.
        num_layers: hidden layers; the paper has 3 in ``fc`` and 2 in ``blstm``.
        num_units: units of a hidden layer (of each direction in ``blstm``).
        dropout: part of each hidden layer's outputs that a training step leaves out.
        learning_rate: Adam step size.
        batch_segments: segments of one optimiser step.
        segment_frames: T, frames of a segment.
        max_segments: train on a random choice of at most this many segments.
        max_epochs: passes over the segments at most.
        patience: stop after so many passes without a lower validation loss.
    """

    kind: Literal["fc", "blstm"] = "fc"
    num_layers: int = 3
    num_units: int = 1024
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch_segments: int = 8
    segment_frames: int = 100
    max_segments: int = 20_000
    max_epochs: int = 100
    patience: int = 5

    def __post_init__(self):
        _check(
            self,
            positive=(
                *("num_layers", "num_units", "learning_rate", "batch_segments"),
                *("segment_frames", "max_segments", "max_epochs", "patience"),
            ),
        )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: give a fraction in [0, 1)")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """Training mixtures drawn at random, for noise that no dictionary has heard.

    Attributes:
        num_mixtures: number of random training mixtures; 0 mixes every utterance with every noise
            as it is, as published.
        mixture_seconds: length of a mixture.
        min_snr_db: lowest SNR, in dB.
        max_snr_db: highest SNR, in dB.
        max_speed: a noise is played up to so many times faster or slower.
        equalizer_db: gains by which noises are coloured, up or down, in dB; speech by half of them.
        second_noise: probability that a second noise joins the first.
        synthetic_noise: probability that a noise is not a recording but made for the run
            (``blsh_jax.robust.synthetic_noise``).
        unaugmented: probability that a mixture is made of speech and one noise as they were
            recorded, at the SNR of the published mixtures: what keeps codes good in the known
            noises.
        alone: probability that speech or noise is alone in a mixture, the other 60 dB below.
        reverberant: probability that speech is that of a room, which belongs to it and stays.
        band_limited: probability that a mixture is cut to the band of a telephone or of another
            narrow recording.
        clipped: probability that a mixture is clipped, and its speech with it: what remains to be
            taken away is the noise.
        noise_folds: noises are dealt to so many folds, and a mixture has noises of one alone: the
            i-th of fold i modulo their number. Ferns need 2 or more.
    """

    num_mixtures: int = 0
    mixture_seconds: float = 3.0
    min_snr_db: float = -5.0
    max_snr_db: float = 6.0
    max_speed: float = 1.4
    equalizer_db: float = 15.0
    second_noise: float = 0.5
    synthetic_noise: float = 0.0
    unaugmented: float = 0.5
    alone: float = 0.0
    reverberant: float = 0.0
    band_limited: float = 0.0
    clipped: float = 0.0
    noise_folds: int = 1

    def __post_init__(self):
        _check(
            self,
            positive=("mixture_seconds", "noise_folds"),
            not_negative=("num_mixtures", "equalizer_db"),
            probabilities=(
                *("second_noise", "synthetic_noise", "unaugmented", "alone"),
                *("reverberant", "band_limited", "clipped"),
            ),
        )
        if self.min_snr_db > self.max_snr_db:
            raise ValueError(f"min_snr_db {self.min_snr_db} is above max_snr_db {self.max_snr_db}")
        if self.max_speed < 1:
            raise ValueError(f"max_speed is {self.max_speed}: give 1 or more")


@dataclasses.dataclass(frozen=True)
class SpeechPresenceConfig:
    """How the neighbours' masks are joined with what the utterance shows of its own noise.

    A weight changes with frequency: it is ``low`` up to 125 Hz, ``high`` from 4 kHz, and goes from
    one to the other by the octave. Where neither SNR has a weight, the mean of the masks stays as
    it is, as published.

    Source: ``blsh_jax.robust.speech_presence``, where the formula stands.

    Attributes:
        mask_weight_low: weight of the log-odds of the mean of the neighbours' masks.
        mask_weight_high: the same, from 4 kHz.
        snr_weight_low: weight of the log of the SNR that the utterance itself shows in a bin.
        snr_weight_high: the same, from 4 kHz.
        past_snr_weight_low: weight of the log of that SNR over the bin's past, as the neighbours
            tell it.
        past_snr_weight_high: the same, from 4 kHz.
        prior_log_odds: log-odds of speech in a bin before anything is known.
        lowest_hz: below, the neighbours alone count.
    """

    mask_weight_low: float = 1.0
    mask_weight_high: float = 1.0
    snr_weight_low: float = 0.0
    snr_weight_high: float = 0.0
    past_snr_weight_low: float = 0.0
    past_snr_weight_high: float = 0.0
    prior_log_odds: float = 0.0
    lowest_hz: float = 0.0

    def __post_init__(self):
        names = [field.name for field in dataclasses.fields(self)]
        weights = dict.fromkeys((name for name in names if "weight" in name), 100.0)
        _check(self, not_negative=set(names) - {"prior_log_odds"}, at_most=weights)
        if abs(self.prior_log_odds) > 100:
            raise ValueError(f"prior_log_odds is {self.prior_log_odds}: give -100 to 100")

    @property
    def tracks_noise(self) -> bool:
        """Whether anything but the neighbours' masks counts."""
        weights = self.snr_weight_low, self.snr_weight_high
        past_weights = self.past_snr_weight_low, self.past_snr_weight_high
        return max(weights + past_weights) > 0


MASK_ALONE = SpeechPresenceConfig()
"""The mean of the neighbours' masks as it is, as published."""


@dataclasses.dataclass(frozen=True)
class FernConfig:
    """How boosted ferns learn masks (``robust.ferns``).

    Attributes:
        num_ferns: M, how many; 0 leaves the mask to the formula of speech presence.
        num_second_ferns: how many the second stage has, which looks ahead; 0 for one stage.
        fern_bits: B, questions of a fern, whose table has 2^B values.
        fern_rate: part of a Newton step that a fern takes.
        fern_ridge: what is added to the curvature of a leaf, so that rare ones stay small.
        fern_samples: bins on which the questions of a fern are chosen.
        fern_mixtures: mixtures whose bins are drawn, for each stage.
        fern_bins: bins that are drawn of each.
        fern_max_snr_db: highest SNR of the augmented ones among them, in dB.
        fern_alone: probability that speech or noise is alone in one, so that clean speech passes
            and noise falls silent.
    """

    num_ferns: int = 0
    num_second_ferns: int = 0
    fern_bits: int = 8
    fern_rate: float = 0.15
    fern_ridge: float = 30.0
    fern_samples: int = 400_000
    fern_mixtures: int = 3200
    fern_bins: int = 800
    fern_max_snr_db: float = 15.0
    fern_alone: float = 0.1

    def __post_init__(self):
        _check(
            self,
            positive=(
                *("fern_bits", "fern_rate", "fern_ridge"),
                *("fern_samples", "fern_mixtures", "fern_bins"),
            ),
            not_negative=("num_ferns", "num_second_ferns"),
            at_most={"num_ferns": 4096, "num_second_ferns": 4096, "fern_bits": 12},
            probabilities=("fern_alone",),
        )
        if self.num_second_ferns and not self.num_ferns:
            raise ValueError("num_second_ferns needs num_ferns: a second stage follows a first")

    @property
    def stages(self) -> tuple[int, ...]:
        """How many ferns each stage has."""
        return tuple(count for count in (self.num_ferns, self.num_second_ferns) if count)


@dataclasses.dataclass(frozen=True)
class SeparationConfig:
    """How mixtures become speech: all that using a model takes besides its dictionary.

    Attributes:
        stft: the transform.
        features: what frames are compared by.
        num_neighbors: K, the neighbours whose masks are averaged.
        speech_presence: how their masks are joined with the noise that the utterance shows.
        decisiveness: how far masks are raised where nearly all of the last second was speech, and
            lowered where hardly any was (``robust.mask_stage.DecisiveMask``); 0 leaves them.
        strength: exponent of the mask that comes out: above 1 more is taken away, below 1 more is
            kept.
    """

    stft: StftConfig = StftConfig()
    features: FeatureConfig = FeatureConfig()
    num_neighbors: int = 10
    speech_presence: SpeechPresenceConfig = MASK_ALONE
    decisiveness: float = 0.0
    strength: float = 1.0

    def __post_init__(self):
        most = {"num_neighbors": 1024, "decisiveness": 16.0, "strength": 64.0}
        not_negative = ("decisiveness", "strength")
        _check(self, positive=("num_neighbors",), not_negative=not_negative, at_most=most)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole training run: how mixtures are made, and what is learned from them.

    Attributes:
        separation: how the model is used.
        fit: how projections are learned.
        target_vectors: whose similarity codes should reproduce: that of the ``frames``, as
            published, or of a frame's ``speech_and_noise`` (``robust.band_shares``).
        fine_tuning: how they are fine-tuned together afterwards.
        ferns: how a mask stage is learned that takes the place of speech presence.
        augmentation: random training mixtures in place of the published ones.
        snr_db: SNR of the training mixtures that are not augmented, in dB.
        held_back: last part of each training utterance that training does not touch; the closed
            test set is made of it.
        dictionary_fraction: part of the training frames that is drawn for the dictionary
            ([ICASSP20] section 4.2 compares 10 % and 1 %).
        max_dictionary_frames: the dictionary keeps at most so many of the drawn frames, while
            projections are learned on more; 0 keeps all.
        high_pass_hz: what a recording of speech holds below counts as noise in the masks, as it
            is rumble (``robust.high_pass``); 0 counts everything, as published.
        max_fit_frames: projections are learned on at most this many of the frames.
        seed: seed of everything random.
    """

    separation: SeparationConfig = SeparationConfig()
    fit: FitConfig = FitConfig()
    target_vectors: Literal["frames", "speech_and_noise"] = "frames"
    fine_tuning: FineTuningConfig = FineTuningConfig()
    ferns: FernConfig = FernConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    snr_db: float = 0.0
    held_back: float = 0.2
    dictionary_fraction: float = 0.1
    max_dictionary_frames: int = 0
    high_pass_hz: float = 0.0
    max_fit_frames: int = 100_000
    seed: int = 0

    def __post_init__(self):
        _check(self, ("max_fit_frames",), ("max_dictionary_frames", "high_pass_hz", "seed"))
        if not 0 < self.dictionary_fraction <= 1:
            raise ValueError(f"dictionary_fraction is {self.dictionary_fraction}: give (0, 1]")
        if not 0 <= self.held_back < 1:
            raise ValueError(f"held_back is {self.held_back}: give a fraction in [0, 1)")

    def check_ferns(self, augmented: bool) -> None:
        """Raise ValueError for ferns that cannot be learned, as mixtures are not what they need.

        Args:
            augmented: whether mixtures are.
        """
        if self.ferns.num_ferns and not augmented:
            raise ValueError(
                "ferns are learned on augmented mixtures: give num_mixtures, or no num_ferns"
            )
        if self.ferns.num_ferns and self.augmentation.noise_folds < 2:
            raise ValueError(
                f"noise_folds is {self.augmentation.noise_folds}: ferns need 2 or more, as they "
                "learn from noises that the searched frames do not have"
            )


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Fine-tuning of a model on noise of one's own (``training.adaptation``).

    Attributes:
        num_mixtures: mixtures whose frames join the dictionary.
        dictionary_growth: frames that join it, at most, as a part of those that it has.
        fern_mixtures: mixtures on whose bins ferns are learned, for each stage.
        num_ferns: ferns that each stage gets more; with more of them the model forgets other
            noise, and hardly gains in this one.
        synthetic_noise: probability that the noise of a mixture is a synthetic one.
        seed: of everything random.
    """

    num_mixtures: int = 160
    dictionary_growth: float = 0.25
    fern_mixtures: int = 320
    num_ferns: int = 20
    synthetic_noise: float = 0.1
    seed: int = 0

    def __post_init__(self):
        _check(
            self,
            positive=("num_mixtures", "dictionary_growth", "fern_mixtures", "num_ferns"),
            probabilities=("synthetic_noise",),
        )


RECIPES: dict[str, TrainConfig] = {
    "paper": TrainConfig(),
    "general": TrainConfig(
        separation=SeparationConfig(
            features=FeatureConfig("log_mel", levels=32, voicing=16, pre_roll_frames=64),
            num_neighbors=40,
            speech_presence=SpeechPresenceConfig(
                mask_weight_low=0.6,
                mask_weight_high=1.05,
                snr_weight_low=0.9,
                snr_weight_high=0.2,
                past_snr_weight_low=0.2,
                past_snr_weight_high=0.8,
                prior_log_odds=-0.7,
                lowest_hz=50.0,
            ),
            strength=1.25,
        ),
        target_vectors="speech_and_noise",
        fine_tuning=FineTuningConfig(
            fine_tuning_steps=2000, fine_tuning_queries=1024, fine_tuning_candidates=8192
        ),
        ferns=FernConfig(num_ferns=200, num_second_ferns=200),
        augmentation=AugmentationConfig(
            num_mixtures=8000, synthetic_noise=0.5, unaugmented=0.2, noise_folds=4
        ),
        dictionary_fraction=0.16,
        max_dictionary_frames=122_000,
        high_pass_hz=50.0,
    ),
}
"""What a run starts from: the paper's method as trained here (docs/method.md says how the authors'
training differs), or what separates unknown noise best."""


# Names for the strength of a denoiser (``Model.with_strength``).
STRENGTHS = {"keep-speech": 0.6, "balanced": 1.0, "silence": 1.6}


def strength_of(word: str | float) -> float:
    """A strength by its name, or the number that it is.

    Raises:
        ValueError: it is neither.
    """
    try:
        return STRENGTHS.get(str(word).replace("_", "-")) or float(word)
    except (TypeError, ValueError):
        raise ValueError(f"{word!r}: give {', '.join(STRENGTHS)}, or a number") from None


def underscored(word: str) -> str:
    """An option as it is defined, however people type its name: --dry-wet is --dry_wet."""
    return re.sub(r"(?<=^--)[^=]+", lambda name: name[0].replace("-", "_"), word)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain nested dictionaries, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(kind: type[_Config], values: dict[str, Any]) -> _Config:
    """The configuration of type ``kind`` that ``to_dict`` wrote.

    Raises:
        ValueError: ``values`` holds a name that ``kind`` does not have, or a value out of range.
    """
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ValueError(f"{kind.__name__} has no setting {', '.join(unknown)[:100]}")
    nested = {
        name: from_dict(types[name], value)
        if isinstance(value, dict) and dataclasses.is_dataclass(types[name])
        else value
        for name, value in values.items()
    }
    return kind(**nested)

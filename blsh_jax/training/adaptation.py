"""Fine-tuning of a model on noise of one's own, from a minute or more of it.

    adapted = adapt(model, noise, speech)

Frames of speech in that noise join the dictionary, and each stage of ferns gets some more, which
are boosted on what those before them get wrong in it. Hash functions stay as they are. Mixtures
are made as the model's own were, but the noise keeps its speed, and nearly its colour.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from blsh_jax.config import AdaptationConfig, TrainConfig, to_dict
from blsh_jax.corpora import Loaded, Recording
from blsh_jax.corpora.mixing import amplitude
from blsh_jax.models.model import Model
from blsh_jax.paper import codes
from blsh_jax.robust.augmentation import AugmentedMixtures
from blsh_jax.robust.synthetic_noise import synthetic_noises
from blsh_jax.training.dictionary import sample_frames
from blsh_jax.training.mask_stage import learn_ferns

LEAST_NOISE_SECONDS = 10.0
LEAST_SPEECH_SECONDS = 30.0
_FOLDS = 4  # stretches of the noise; what is learned in one is searched in the others
_EQUALIZER_DB = 3.0
_PAUSE_DB = -30.0  # seconds of speech so far below the mean are pauses


def adapt(
    model: Model,
    noise: Sequence[npt.ArrayLike],
    speech: Sequence[npt.ArrayLike],
    config: AdaptationConfig | None = None,
    progress: bool = False,
) -> Model:
    """A model that knows a noise better.

    Args:
        model: a trained model, such as a pretrained one.
        noise: (samples,) recordings of the noise alone, at the model's sample rate.
        speech: (samples,) recordings of clean speech, of whoever will talk or of others, at the
            same rate.
        config: how much is learned; the defaults of ``AdaptationConfig`` if not given.
        progress: show progress bars.

    Returns:
        The model with more dictionary frames and more ferns, without the frames' features.

    Raises:
        ValueError: there is too little of either, or a recording has several channels or numbers
            that are not finite.
    """
    config = config or AdaptationConfig()
    settings = _settings(model.config, config)
    rate = model.separation.stft.sample_rate
    noises, voices = _checked(noise, "noise"), _checked(speech, "speech")
    stretches, spoken, synthetic = _stretches(noises, rate), _spoken(voices, rate), Loaded([], ())
    if config.synthetic_noise:
        synthetic = synthetic_noises(spoken, config.seed, "whole", 0.0, rate)
    mixtures = AugmentedMixtures(
        *(spoken, stretches, synthetic, settings.augmentation, config.seed, "whole", 0.0, rate)
    )
    sample = sample_frames(mixtures, settings, progress)
    kept = slice(0, round(config.dictionary_growth * model.dictionary.num_frames))
    known = model.dictionary
    dictionary = dataclasses.replace(
        known,
        codes=jnp.concatenate(
            [known.codes, codes.encode(known.hasher, jnp.asarray(sample.frames[kept]))]
        ),
        masks=jnp.concatenate([known.masks, jnp.asarray(sample.masks[kept])]),
        tiles=None,
    ).prepare()
    of_others = np.full(known.num_frames, -1, np.int32)
    sources = np.concatenate([of_others, sample.mixtures[kept]])
    ferns = learn_ferns(mixtures, sources, dictionary, settings, progress, model.ferns)
    counts = [len(stage.tables) for stage in ferns] + [0, 0]
    learning = dataclasses.replace(
        model.config.ferns, num_ferns=counts[0], num_second_ferns=counts[1]
    )
    seconds = {
        f"{name}_seconds": round(sum(map(len, signals)) / rate, 1)
        for name, signals in (("noise", noises), ("speech", voices))
    }
    return dataclasses.replace(
        model,
        provenance=model.provenance | {"adapted": seconds | to_dict(config)},
        config=dataclasses.replace(model.config, ferns=learning),
        dictionary=dictionary,
        ferns=ferns,
        frames=None,
    )


def _settings(trained: TrainConfig, config: AdaptationConfig) -> TrainConfig:
    """How mixtures are made and ferns are learned."""
    counts = [config.num_ferns if stage < len(trained.ferns.stages) else 0 for stage in range(2)]
    return dataclasses.replace(
        trained,
        augmentation=dataclasses.replace(
            trained.augmentation,
            num_mixtures=config.num_mixtures,
            max_speed=1.0,
            equalizer_db=_EQUALIZER_DB,
            second_noise=0.0,
            synthetic_noise=config.synthetic_noise,
            unaugmented=0.0,
            noise_folds=_FOLDS,
        ),
        ferns=dataclasses.replace(
            trained.ferns,
            num_ferns=counts[0],
            num_second_ferns=counts[1],
            fern_mixtures=config.fern_mixtures,
        ),
        dictionary_fraction=1.0,
        seed=config.seed,
    )


def _checked(signals: Sequence[npt.ArrayLike], name: str) -> list[np.ndarray]:
    arrays = [np.asarray(signal, np.float32) for signal in signals]
    for array in arrays:
        if array.ndim != 1 or not np.isfinite(array).all():
            raise ValueError(f"{name}: give arrays (samples,) of finite numbers, one a recording")
    return arrays


def _stretches(noises: list[np.ndarray], rate: int) -> Loaded:
    """As many stretches as there are folds, a part of each recording in each."""
    _check_length(noises, rate, LEAST_NOISE_SECONDS, "noise")
    parts = zip(*(np.array_split(noise, _FOLDS) for noise in noises), strict=True)
    return _folded([np.concatenate(stretch) for stretch in parts], "noise")


def _spoken(voices: list[np.ndarray], rate: int) -> Loaded:
    """As many stretches as there are folds, without long pauses."""
    spoken = [_without_pauses(voice, rate) for voice in voices]
    _check_length(spoken, rate, LEAST_SPEECH_SECONDS, "speech")
    return _folded(np.array_split(np.concatenate(spoken), _FOLDS), "speech")


def _without_pauses(signal: np.ndarray, rate: int) -> np.ndarray:
    """The seconds of a signal in which there is speech."""
    seconds = np.array_split(signal, max(1, len(signal) // rate))
    powers = np.array([np.mean(np.square(part, dtype=np.float64)) for part in seconds])
    spoken = powers > amplitude(_PAUSE_DB) ** 2 * powers.mean()
    return np.concatenate([part for part, kept in zip(seconds, spoken, strict=True) if kept])


def _check_length(signals: list[np.ndarray], rate: int, least: float, name: str) -> None:
    seconds = sum(map(len, signals)) / rate
    if seconds < least:
        raise ValueError(
            f"{seconds:.1f} s of {name}: give {least:g} s at least, better a few minutes"
        )


def _folded(signals: list[np.ndarray], name: str) -> Loaded:
    """A signal for each fold: mixtures of a fold share neither noise nor words with the others."""
    recordings = tuple(Recording(f"{name}/{fold}", name=name) for fold in range(len(signals)))
    return Loaded(signals, recordings)

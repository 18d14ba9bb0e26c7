r"""Other material to train on: speech in rooms, and made voices beside recorded ones.

    python -m experiments.materials --recipe=general --speech DIR --noise DIR \
        --output materials.json

For validation, on training material alone, with noises left out in groups as in
``experiments.unseen``. Every model is scored on the speech as it was recorded, near the microphone,
and on the same mixtures with all of the speech in rooms. Takes ten minutes on two CPU cores.

Letters: n samples.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from blsh_jax import corpora, evaluation, training
from blsh_jax.config import TrainConfig
from blsh_jax.corpora import Loaded, Mixture
from blsh_jax.corpora.mixing import amplitude
from experiments import validation
from experiments.workbench import searching

_COLUMNS = ["material", "num_bits", "sdr", "si_sdr", "sdr_in_rooms", "si_sdr_in_rooms"]
_ROOMS_SEED = 2
_REVERBERATION_SECONDS = (0.2, 0.8)  # until an echo is 60 dB weaker
_DIRECT_DB = (-3.0, 9.0)  # the direct sound relative to all echoes
_MADE_VOICES = 16
_UTTERANCES_OF_A_VOICE = 4


@dataclasses.dataclass(frozen=True, eq=False)
class InRooms(Sequence):
    """Mixtures whose speech is heard in rooms; what the room adds counts as speech.

    Attributes:
        mixtures: as they are without.
        probability: of a room, for each mixture.
        sample_rate: in Hz.
    """

    mixtures: Sequence[Mixture]
    probability: float
    sample_rate: int

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index):
        mixture, rng = self.mixtures[index], np.random.default_rng([_ROOMS_SEED, index])
        if rng.random() >= self.probability:
            return mixture
        speech = _heard_through(mixture.speech, room_response(self.sample_rate, rng))
        return corpora.mix(
            speech, mixture.noise, mixture.snr_db, 0, mixture.speech_key, mixture.noise_key
        )


def room_response(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) the sound of a click in a room: the click, and noise that dies away exponentially.

    Source: J. D. Polack's model of late reverberation (thesis, Le Mans 1988).
    """
    seconds = np.exp(rng.uniform(*np.log(_REVERBERATION_SECONDS)))
    time = np.arange(1, round(seconds * sample_rate)) / sample_rate
    echoes = rng.standard_normal(len(time)) * amplitude(-60 * time / seconds)
    echoes *= amplitude(-rng.uniform(*_DIRECT_DB)) / np.linalg.norm(echoes)
    return np.concatenate([[1.0], echoes])


def materials(
    group: validation.Group, config: TrainConfig, num_bits: Sequence[int]
) -> validation.Rows:
    """A row per material and length, of one group of noises left out.

    Args:
        group: of ``validation.left_out_in_turn``.
        config: the recipe.
        num_bits: code lengths.
    """
    in_rooms = InRooms(group.tests, 1.0, config.stft.sample_rate)
    rows = []
    for name, make in _MATERIALS.items():
        print(name, flush=True)
        model, _ = training.train(make(group, config), config, {}, progress=True)
        systems = [
            searching("blsh", length, model.dictionary.prefix(length), config, config.features)
            for length in num_bits
        ]
        near, far = (evaluation.evaluate(systems, tests) for tests in (group.tests, in_rooms))
        rows += [
            {"material": name, "num_bits": one["num_bits"]}
            | {score: one[score] for score in ("sdr", "si_sdr")}
            | {f"{score}_in_rooms": other[score] for score in ("sdr", "si_sdr")}
            for one, other in zip(near, far, strict=True)
        ]
    return rows


def _heard_through(signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """(n,) float32, what comes of the signal through the response, cut to its length."""
    size = len(signal) + len(response) - 1
    through = np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)
    return through[: len(signal)].astype(np.float32)


def _recorded(group: validation.Group, config: TrainConfig) -> Sequence[Mixture]:
    return corpora.training_mixtures(group.speech, group.noise, config)


def _in_rooms(
    probability: float, group: validation.Group, config: TrainConfig
) -> Sequence[Mixture]:
    return InRooms(_recorded(group, config), probability, config.stft.sample_rate)


def _with_made_voices(group: validation.Group, config: TrainConfig) -> Sequence[Mixture]:
    """Made voices take turns with the recorded ones."""
    rate, key = config.stft.sample_rate, jax.random.key(config.seed)
    made = corpora.synthetic_speech(
        key, _MADE_VOICES, _UTTERANCES_OF_A_VOICE, config.variety.mixture_seconds, rate
    )
    recorded = group.speech
    both = Loaded(recorded.signals + made.signals, recorded.recordings + made.recordings)
    return corpora.training_mixtures(both, group.noise, config)


_MATERIALS: dict[str, Callable[[validation.Group, TrainConfig], Sequence[Mixture]]] = {
    "the recipe": _recorded,
    "half of the speech in rooms": functools.partial(_in_rooms, 0.5),
    "all of the speech in rooms": functools.partial(_in_rooms, 1.0),
    "made voices beside the recorded": _with_made_voices,
}


if __name__ == "__main__":
    validation.run("materials", materials, _COLUMNS)

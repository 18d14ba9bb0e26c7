"""From the microphone to the speaker: an audio callback around the denoiser."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from blsh_jax._extras import extra
from blsh_jax.corpora.audio import LOUDEST
from blsh_jax.denoising.buffers import SampleQueue
from blsh_jax.denoising.recordings import Denoiser
from blsh_jax.models.model import Model

_WARM_UP_SECONDS = 1.0


class Callback:
    """Denoises one channel, a block of the audio device at a time.

    What is played starts with silence, as long as the denoiser ever holds samples back. Blocks of
    another size than announced may need more: it is added where it is missing, and stays.

    Args:
        model: what to denoise with.
        sample_rate: of the device, in Hz.
        block: samples that the device gives at a time.
        dry_wet: as in ``denoise``.
        max_attenuation_db: as in ``denoise``.
    """

    def __init__(
        self,
        model: Model,
        sample_rate: float,
        block: int,
        dry_wet: float = 1.0,
        max_attenuation_db: float = math.inf,
    ):
        make = lambda: Denoiser(
            model.without_look_ahead(),
            sample_rate,
            1,
            dry_wet,
            max_attenuation_db,
            hops=1,
            pre_roll=False,
        )
        blocks = round(_WARM_UP_SECONDS * sample_rate / block)
        self.delay = _held_back(make(), block, blocks)
        self.dropouts = 0
        self._denoiser, self._ready = make(), SampleQueue(1)
        self._ready.put(np.zeros((1, self.delay)))

    def __call__(
        self, heard: np.ndarray, played: np.ndarray, frames: int, clock: Any, status: Any
    ) -> None:
        """What sounddevice calls for every block.

        Args:
            heard: (frames, channels) float32 of the microphone; averaged. A sample that is NaN,
                infinite or beyond ``LOUDEST`` counts as 0, as in ``pipeline.apply``.
            played: (frames, channels) float32, to be filled.
            frames: samples of the block.
            clock: not used.
            status: true if the device ran over or dry since the last call.
        """
        self.dropouts += bool(status)
        mono = np.where(np.abs(heard) <= LOUDEST, heard, 0).mean(axis=1, dtype=np.float32)
        self._ready.put(self._denoiser.feed(mono[None]))
        missing = max(0, frames - len(self._ready))
        self.delay += missing
        played[:missing] = 0
        played[missing:] = self._ready.take(frames - missing).T


def run(
    model: Model,
    dry_wet: float = 1.0,
    max_attenuation_db: float = math.inf,
    microphone: str | None = None,
    speaker: str | None = None,
    sound: Any = None,
    wait: Callable[[float], object] = time.sleep,
) -> Callback:
    """Denoise the microphone and play it, until interrupted.

    Args:
        model: what to denoise with.
        dry_wet: as in ``denoise``.
        max_attenuation_db: as in ``denoise``.
        microphone: number or part of the name of the input device; the system's if not given.
        speaker: number or part of the name of the output device; the system's if not given.
        sound: the module that opens devices; sounddevice if not given.
        wait: called again and again with seconds while the callback works; KeyboardInterrupt ends.

    Returns:
        The callback, with the delay and the dropouts that were counted.

    Raises:
        RuntimeError: sounddevice is missing, or a device cannot be opened, or stops.
    """
    sound = _sounddevice() if sound is None else sound
    devices = (_device(microphone), _device(speaker))
    stft = model.separation.stft
    # Most systems take any rate; those that do not are asked for the one of the microphone.
    try:
        sound.check_input_settings(device=devices[0], channels=1, samplerate=stft.sample_rate)
        sound.check_output_settings(device=devices[1], channels=1, samplerate=stft.sample_rate)
        rate = float(stft.sample_rate)
    except sound.PortAudioError:
        rate = _native_rate(sound, devices[0])
    block = round(stft.hop_length * rate / stft.sample_rate)
    callback = Callback(model, rate, block, dry_wet, max_attenuation_db)
    try:
        with sound.Stream(
            samplerate=rate,
            blocksize=block,
            device=devices,
            channels=1,
            dtype="float32",
            latency="low",
            callback=callback,
        ) as stream:
            lag = callback.delay / rate + sum(stream.latency)
            print(f"Denoising at {rate:.0f} Hz, about {1000 * lag:.0f} ms late. Ctrl-C ends.")
            while stream.active:
                wait(0.1)
            raise RuntimeError("the audio device stopped: plug it in again, and start anew")
    except KeyboardInterrupt:
        print(f"Ended: {callback.dropouts} dropouts.")
    except sound.PortAudioError as error:
        raise RuntimeError(f"the audio device cannot be used ({error}): see --help") from error
    return callback


def _held_back(denoiser: Denoiser, block: int, blocks: int) -> int:
    """Samples that a denoiser holds back at most; compiles it on the way."""
    fed, given, most = 0, 0, 0
    for _ in range(blocks):
        fed += block
        given += denoiser.feed(np.zeros((1, block), np.float32)).shape[-1]
        most = max(most, fed - given)
    return most


def _native_rate(sound: Any, device: int | str | None) -> float:
    try:
        return float(sound.query_devices(device, "input")["default_samplerate"])
    except (sound.PortAudioError, ValueError) as error:
        raise RuntimeError(f"no microphone {device or ''} ({error})") from error


def _device(name: str | None) -> int | str | None:
    """Sounddevice takes numbers as integers and parts of names as strings."""
    return int(name) if name is not None and name.isdigit() else name


def _sounddevice() -> Any:
    try:
        with extra("live"):
            import sounddevice
    except OSError as error:  # the package is there, the library that it binds is not
        raise RuntimeError(f"{error}: install it, for example apt install libportaudio2") from error
    return sounddevice

"""Live denoising, with a recording for a microphone and an array for a speaker."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from small_models import random_model

from blsh_jax.denoising import live
from blsh_jax.denoising import recordings as denoising


class PortAudioError(Exception):
    pass


class FakeSound:
    """The part of sounddevice that is used: plays a recording in blocks, keeps what is played."""

    PortAudioError = PortAudioError

    def __init__(self, recording, rates, native=48_000, broken=False):
        self.recording, self.rates, self.native, self.broken = recording, rates, native, broken
        self.played, self.opened = [], None

    def check_input_settings(self, device, channels, samplerate):
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def query_devices(self, device, kind):
        if device == "none":
            raise ValueError("No input device matching 'none'")
        return {"default_samplerate": float(self.native)}

    def Stream(self, **settings):
        if self.broken:
            raise PortAudioError("Device unavailable")
        self.opened = SimpleNamespace(**settings, latency_pair=(0.01, 0.02))
        return self

    latency = (0.01, 0.02)
    active = True

    def __enter__(self):
        size = self.opened.blocksize
        for start in range(0, len(self.recording) - size + 1, size):
            played = np.full((size, 1), np.nan, np.float32)
            heard = self.recording[start : start + size, None]
            self.opened.callback(heard, played, size, None, start == 0)
            self.played.append(played[:, 0])
        return self

    def __exit__(self, *_):
        return False


def interrupt(_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def used():
    return random_model()


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_is_played_is_what_denoise_gives_late(used, rate, capsys):
    noisy = (0.1 * np.random.default_rng(0).standard_normal(rate // 2)).astype(np.float32)
    sound = FakeSound(noisy, (rate,), native=rate)
    devices = {"microphone": "3", "speaker": "Head"}  # by number or by name
    callback = live.run(used, max_attenuation_db=20.0, sound=sound, wait=interrupt, **devices)
    assert (sound.opened.samplerate, sound.opened.dtype) == (rate, "float32")
    assert sound.opened.device == (3, "Head")
    assert callback.dropouts == 1  # the one that the device told of
    played = np.concatenate(sound.played)
    assert not played[: callback.delay].any()
    expected = denoising.denoise(noisy, rate, used, max_attenuation_db=20.0)
    heard = played[callback.delay :]
    np.testing.assert_allclose(heard, expected[: len(heard)], atol=2e-6)
    # The resamplers hold back up to 160 ms, where the device does not take the model's rate.
    extra = 0.16 * (rate != 16_000)
    assert 768 / 16_000 <= callback.delay / rate <= 768 / 16_000 + extra
    assert f"{rate} Hz" in capsys.readouterr().out


def test_blocks_of_any_size_settle_at_a_constant_delay(used):
    callback = live.Callback(used, 16_000, 256)
    noisy = (0.1 * np.random.default_rng(0).standard_normal((9000, 2))).astype(np.float32)
    delays, played, start = [], [], 0
    for size in np.random.default_rng(1).integers(1, 500, 30):
        block = np.empty((size, 1), np.float32)
        callback(noisy[start : start + size], block, size, None, None)
        played.append(block[:, 0])
        delays.append(callback.delay)
        start += size
    expected = denoising.denoise(noisy[:start].mean(1), 16_000, used)
    settled = np.searchsorted(delays, delays[-1])
    after = sum(len(block) for block in played[: settled + 1])
    heard = np.concatenate(played)[after:]
    first = after - callback.delay
    np.testing.assert_allclose(heard, expected[first : first + len(heard)], atol=1e-6)
    assert callback.delay <= 768 + 255


def test_samples_that_nothing_can_be_made_of_are_silence(used):
    noisy = (0.1 * np.random.default_rng(0).standard_normal((20, 256, 2))).astype(np.float32)
    bad, silent = noisy.copy(), noisy.copy()
    bad[7, 3:7, 0] = np.nan, np.inf, -np.inf, 3e38
    silent[7, 3:7, 0] = 0
    played = np.zeros((2, 20, 256, 1), np.float32)
    for heard, out in zip((bad, silent), played, strict=True):
        callback = live.Callback(used, 16_000, 256)
        for block, filled in zip(heard, out, strict=True):
            callback(block, filled, 256, None, None)
    assert played[0].any()
    np.testing.assert_array_equal(played[0], played[1])


def test_trouble_says_what_to_do(used, monkeypatch):
    with pytest.raises(RuntimeError, match="Device unavailable"):
        live.run(used, sound=FakeSound(np.zeros(9), (16_000,), broken=True), wait=interrupt)
    with pytest.raises(RuntimeError, match="no microphone none"):
        live.run(used, microphone="none", sound=FakeSound(np.zeros(9), ()), wait=interrupt)
    unplugged = FakeSound(np.zeros(2560, np.float32), (16_000,))
    unplugged.active = False
    with pytest.raises(RuntimeError, match="the audio device stopped"):
        live.run(used, sound=unplugged)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ImportError, match="needs the extra 'live'"):
        live.run(used)

"""Denoisers of others without anything of ours beside them: as functions, and as a program.

    python -m experiments.tools INPUT OUTPUT rnnoise
    python -m experiments.tools INPUT OUTPUT dtln FOLDER

The program denoises one file of ``SAMPLE_RATE``, and imports what that takes: to be timed. What the
tools are is in ``experiments.denoisers``.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
# RNNoise as packaged puts out what it heard so much earlier, at 16 kHz.
_RNNOISE_DELAY = 320
_FULL_SCALE = 32_767
_DTLN_BLOCK, _DTLN_SHIFT = 512, 128
_GTCRN_WINDOW, _GTCRN_HOP = 512, 256


class Tool(NamedTuple):
    """A denoiser.

    Attributes:
        package: what has to be installed.
        denoise: of the package, or of the sessions of the files, and a mixture (n,) float32 at
            ``SAMPLE_RATE``: the speech, aligned to the sample.
        files: the ONNX files that it runs from, and the last axes of the first input of each.
    """

    package: str
    denoise: Callable[[Any, np.ndarray], np.ndarray]
    files: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def sessions(
    runtime: Any, name: str, folder: str | None, wanted: Mapping[str, tuple[int, ...]]
) -> list[Any]:
    """The networks in the files that ``--NAME=FOLDER`` should hold.

    Args:
        runtime: the package onnxruntime.
        name: of the flag.
        folder: its value.
        wanted: file names, and the last axes of the first input of each.

    Raises:
        ValueError: a file is missing or not what it should be.
    """
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # frames are too little work for more
    loaded = []
    for file, shape in wanted.items():
        path = Path(folder or "") / file
        if not path.is_file():
            raise ValueError(f"--{name}={folder}: {file} is not there; give the folder that has it")
        try:
            session = runtime.InferenceSession(path, options, ["CPUExecutionProvider"])
        except Exception as error:  # of classes of its own
            raise ValueError(f"{path}: no ONNX model that can be run: {error}") from error
        found = tuple(session.get_inputs()[0].shape)
        if found[-len(shape) :] != shape:
            raise ValueError(
                f"{path}: its input is {found}, that of {name} ends in {shape}; give the file that "
                "its authors publish under this name"
            )
        loaded.append(session)
    return loaded


def rnnoise(module: Any, mixture: np.ndarray) -> np.ndarray:
    """What RNNoise makes of a mixture (n,) float32, its delay taken out."""
    whole = np.pad(mixture, (0, 2 * _RNNOISE_DELAY))
    steps = np.clip(whole * _FULL_SCALE, -_FULL_SCALE - 1, _FULL_SCALE).astype(np.int16)
    network = module.RNNoise(sample_rate=SAMPLE_RATE)
    frames = [frame for _, frame in network.denoise_chunk(steps[None], partial=True)]
    return np.concatenate(frames, axis=-1)[0, _RNNOISE_DELAY:] / np.float32(_FULL_SCALE)


def dtln(networks: Sequence[Any], mixture: np.ndarray) -> np.ndarray:
    """Blocks without a window; a mask of magnitudes, then a network on samples."""
    masks, speech = map(_stepped, networks)
    lead = _DTLN_BLOCK - _DTLN_SHIFT
    heard = np.pad(mixture, (lead, _DTLN_BLOCK))
    made = np.zeros(len(heard))
    for start in range(0, len(mixture) + lead, _DTLN_SHIFT):
        block = slice(start, start + _DTLN_BLOCK)
        spectrum = np.fft.rfft(heard[block])
        masked = np.fft.irfft(spectrum * masks(np.abs(spectrum)[None, None])[0, 0])
        made[block] += speech(masked[None, None])[0, 0]
    return made[lead:]


def gtcrn(networks: Sequence[Any], mixture: np.ndarray) -> np.ndarray:
    """Spectra under the root of a Hann window, which the network makes those of the speech."""
    (step,) = map(_stepped, networks)
    window = np.sqrt(np.hanning(_GTCRN_WINDOW + 1)[:-1])
    heard = np.pad(mixture, (_GTCRN_HOP, _GTCRN_WINDOW))
    made = np.zeros(len(heard))
    for start in range(0, len(mixture) + _GTCRN_HOP, _GTCRN_HOP):
        frame = slice(start, start + _GTCRN_WINDOW)
        spectrum = np.fft.rfft(window * heard[frame])
        parts = step(np.stack([spectrum.real, spectrum.imag], axis=-1)[None, :, None])[0, :, 0]
        made[frame] += window * np.fft.irfft(parts[:, 0] + 1j * parts[:, 1])
    return made[_GTCRN_HOP:]


def _stepped(session: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What a network makes of one frame after another; all inputs but the first are its states."""
    first, *others = session.get_inputs()
    states = {state.name: np.zeros(state.shape, np.float32) for state in others}

    def step(frame: np.ndarray) -> np.ndarray:
        made, *newer = session.run(None, {first.name: frame.astype(np.float32)} | states)
        states.update(zip(states, newer, strict=True))
        return made

    return step


PROGRAMS = {
    "rnnoise": Tool("pyrnnoise", rnnoise),
    "dtln": Tool("onnxruntime", dtln, {"model_1.onnx": (257,), "model_2.onnx": (512,)}),
    "gtcrn": Tool("onnxruntime", gtcrn, {"gtcrn_simple.onnx": (257, 1, 2)}),
}


def main(source: str, target: str, name: str, folder: str | None = None) -> None:
    """Denoise one file."""
    tool = PROGRAMS[name]
    module: Any = importlib.import_module(tool.package)
    if tool.files:
        module = sessions(module, name, folder, tool.files)
    noisy, rate = soundfile.read(source, dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{source} has {rate} Hz: give a file of {SAMPLE_RATE} Hz")
    soundfile.write(target, tool.denoise(module, noisy)[: len(noisy)], rate)


if __name__ == "__main__":
    main(*sys.argv[1:])

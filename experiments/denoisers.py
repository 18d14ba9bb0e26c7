"""Tools that people pick today, and measures of how speech sounds: each a package of its own.

They are no part of blsh_jax and are imported when they are asked for; to install them all:
pip install -e '.[tools]'

logmmse      Y. Ephraim, D. Malah, "Speech enhancement using a minimum mean-square error
             log-spectral amplitude estimator", IEEE Trans. ASSP 33 (2), 1985.
noisereduce  T. Sainburg et al., spectral gating, non-stationary by default.
rnnoise      J.-M. Valin, "A hybrid DSP/deep learning approach to real-time full-band speech
             enhancement", MMSP 2018: a recurrent network trained on other data, at 48 kHz.
rnnoise_pre_roll  the same, with the start of the mixture before it as in the recipe (its authors do
             without): what it does where it, too, knows the noise from the first sample on.
dtln         N. Westhausen, B. Meyer, "Dual-signal transformation LSTM network for real-time noise
             suppression", Interspeech 2020.
gtcrn        X. Rong et al., "GTCRN: a speech enhancement model requiring ultralow computational
             resources", ICASSP 2024.

The last two, and DNSMOS among the measures, run from ONNX files that their authors publish. Nothing
is downloaded: flags say where the files are.
"""

import functools
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array

from blsh_jax._extras import extra
from blsh_jax.commands import launch
from blsh_jax.config import RECIPES
from blsh_jax.evaluation import Estimate, Measure, System
from blsh_jax.robust.pre_roll import with_pre_roll
from experiments import tools
from experiments.tools import SAMPLE_RATE, Tool

flags.disclaim_key_flags()  # they are the program's

MEASURES = ("stoi", "estoi", "pesq", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovr")
_DNSMOS_FILE = {"sig_bak_ovr.onnx": (144_160,)}  # 9.01 s
# From what the network says to the scale of the listeners; without a term of degree 0 to 2 first.
_DNSMOS_SCALE = np.array(
    [
        [0.0052439, 1.22083953, -0.08397278],
        [-0.39604546, 1.60915514, -0.13166888],
        [0.04602535, 1.11546468, -0.06766283],
    ]
)


class Chosen(NamedTuple):
    """What the flags ask for.

    Attributes:
        systems: tools.
        measures: by name.
        settings: what both depend on, for records: names, and the SHA-256 of files.
    """

    systems: list[System]
    measures: dict[str, Measure]
    settings: dict[str, Any]


def define_tools(chosen: Sequence[str] | None = None) -> None:
    """The tools, by default some, or all that need no files, and paths of ONNX files."""
    packaged = [name for name, tool in TOOLS.items() if not tool.files]
    launch.define_choices("tools", packaged, "Other tools, to stand beside ours.", chosen)
    for name, tool in TOOLS.items():
        if tool.files:
            text = f"Folder of {' and '.join(tool.files)} as published: this tool, too."
            flags.DEFINE_string(name, None, text)


def define_flags(chosen: Sequence[str] | None = None) -> None:
    """Those of ``define_tools``, and the measures."""
    define_tools(chosen)
    text = f"Folder of {', '.join(_DNSMOS_FILE)} as published: score DNSMOS P.835, too."
    flags.DEFINE_string("dnsmos", None, text)
    flags.DEFINE_bool("listening", True, "Score STOI, ESTOI and PESQ.")


def tools_from_flags() -> dict[str, str | None]:
    """The tools that the flags ask for, and the folders of those that run from files."""
    values = flags.FLAGS
    folders = {name: getattr(values, name) for name, tool in TOOLS.items() if tool.files}
    return dict.fromkeys(values.tools) | {n: f for n, f in folders.items() if f}


def from_flags() -> Chosen:
    """What the flags of ``define_flags`` ask for.

    Raises:
        ValueError: a file of a tool is missing or not what it should be.
        MissingExtraError: a package is not installed.
    """
    values, chosen = flags.FLAGS, tools_from_flags()
    systems = [system(name, folder) for name, folder in chosen.items()]
    measured = measures() if values.listening else {}
    used = {name: _digests(folder, TOOLS[name].files) for name, folder in chosen.items() if folder}
    if values.dnsmos:
        measured |= dnsmos(values.dnsmos)
        used["dnsmos"] = _digests(values.dnsmos, _DNSMOS_FILE)
    settings = {"tools": list(chosen), "measures": list(measured), "onnx": used}
    return Chosen(systems, measured, settings)


def system(name: str, folder: str | None = None) -> System:
    """A tool as a system to evaluate.

    Args:
        name: one of ``TOOLS``.
        folder: of its ONNX files, if it has any.

    Raises:
        ValueError: a file is missing or not what it should be.
        MissingExtraError: its package is not installed.
    """
    tool = TOOLS[name]
    module = _import(tool.package)
    if tool.files:
        module = tools.sessions(module, name, folder, tool.files)

    def separate(speech: Array, noise: Array) -> Estimate:
        mixtures = np.asarray(speech + noise)
        estimates = [tool.denoise(module, x) if x.any() else x for x in mixtures]
        return Estimate(jnp.stack([_of_length(x, mixtures.shape[-1]) for x in estimates]))

    return System(name, None, separate)


def measures() -> dict[str, Measure]:
    """STOI, ESTOI (0 to 1) and wide-band PESQ (1 to 4.6) of speech and an estimate at 16 kHz.

    Raises:
        MissingExtraError: their packages are not installed.

    Source: C. Taal et al., IEEE Trans. ASLP 19 (7), 2011; J. Jensen, C. Taal, IEEE/ACM Trans. ASLP
    24 (11), 2016; ITU-T P.862.2.
    """
    stoi, pesq = _import("pystoi"), _import("pesq")
    return {
        "stoi": lambda speech, estimate: float(stoi.stoi(speech, estimate, SAMPLE_RATE)),
        "estoi": lambda speech, estimate: float(stoi.stoi(speech, estimate, SAMPLE_RATE, True)),
        "pesq": lambda speech, estimate: float(pesq.pesq(SAMPLE_RATE, speech, estimate, "wb")),
    }


def dnsmos(folder: str) -> dict[str, Measure]:
    """What listeners would say of an estimate, 1 to 5: of the speech, of the background, of all.

    A network guesses it from the estimate alone, in windows of 9.01 s, one a second; what is
    shorter is repeated.

    Args:
        folder: of the network's ONNX file.

    Raises:
        ValueError: the file is missing or not what it should be.
        MissingExtraError: onnxruntime is not installed.

    Source: C. Reddy, V. Gopal, R. Cutler, "DNSMOS P.835: a non-intrusive perceptual objective
    speech quality metric to evaluate noise suppressors", ICASSP 2022, and the authors' script.
    """
    (session,) = tools.sessions(_import("onnxruntime"), "dnsmos", folder, _DNSMOS_FILE)
    (length,) = _DNSMOS_FILE["sig_bak_ovr.onnx"]

    @functools.lru_cache(maxsize=1)  # the three measures are asked for one after another
    def scores(samples: bytes) -> np.ndarray:
        signal = np.frombuffer(samples, np.float32)
        while len(signal) < length:
            signal = np.concatenate([signal, signal])
        count = max(1, len(signal) // SAMPLE_RATE - 9)
        windows = [signal[SAMPLE_RATE * i :][:length] for i in range(count)]
        (raw,) = session.run(None, {session.get_inputs()[0].name: np.stack(windows)})
        return np.mean((raw[..., None] ** np.arange(3) * _DNSMOS_SCALE).sum(-1), axis=0)

    said = lambda place: lambda _, estimate: float(scores(estimate.tobytes())[place])
    return {name: said(place) for place, name in enumerate(MEASURES[3:])}


def _import(package: str) -> Any:
    # logmmse makes NumPy raise on underflow everywhere; the context undoes that.
    with extra("tools"), np.errstate():
        return importlib.import_module(package)


def _digests(folder: str, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    digest = lambda file: hashlib.sha256((Path(folder) / file).read_bytes()).hexdigest()
    return {file: digest(file) for file in wanted}


def _of_length(signal: np.ndarray, length: int) -> np.ndarray:
    return np.pad(signal, (0, max(0, length - len(signal))))[:length].astype(np.float32)


def _rnnoise_pre_roll(module: Any, mixture: np.ndarray) -> np.ndarray:
    recipe = RECIPES["general"].separation
    pre_rolled = with_pre_roll(mixture, recipe.features.pre_roll_frames, recipe.stft)
    return tools.rnnoise(module, np.asarray(pre_rolled))[len(pre_rolled) - len(mixture) :]


TOOLS = {
    "logmmse": Tool("logmmse", lambda module, x: module.logmmse(x, SAMPLE_RATE)),
    "noisereduce": Tool("noisereduce", lambda module, x: module.reduce_noise(x, SAMPLE_RATE)),
    "rnnoise_pre_roll": Tool("pyrnnoise", _rnnoise_pre_roll),
    **tools.PROGRAMS,
}

"""Tools of others: aligned to the sample, their files checked, their measures as published."""

import hashlib
import importlib.util
import sys
from types import SimpleNamespace

import launching
import numpy as np
import pytest
import soundfile

from experiments import denoisers, tools


def test_a_tool_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "logmmse", None)
    with pytest.raises(ImportError, match="needs the extra 'tools'"):
        denoisers.system("logmmse")


@pytest.mark.parametrize("name", [n for n, tool in denoisers.TOOLS.items() if not tool.files])
def test_tools_give_aligned_signals_and_leave_numpy_alone(name):
    # Looked for without importing: logmmse changes NumPy's error handling as it is imported.
    if importlib.util.find_spec(denoisers.TOOLS[name].package) is None:
        pytest.skip(f"{name} is not installed")
    before = np.geterr()
    system = denoisers.system(name)
    assert np.geterr() == before
    rng = np.random.default_rng(0)
    time = np.arange(32_000) / 16_000
    voice = np.sum([np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20)], axis=0)
    speech = (0.1 * voice * (np.sin(2 * np.pi * 3 * time) > 0))[None].astype(np.float32)
    noise = (0.01 * rng.standard_normal((1, 32_000))).astype(np.float32)
    estimate = np.asarray(system.separate(speech, noise).speech)
    assert estimate.shape == (1, 32_000) and estimate.dtype == np.float32
    lags = np.correlate(estimate[0, 8000:24_000], speech[0, 8400:23_600], "valid")
    assert abs(int(np.argmax(lags)) - 400) <= 2


class Session:
    """An ONNX session in which a frame stays what it is, and a state counts the frames."""

    def __init__(self, path, options, providers):
        if path.read_bytes() != b"a model":
            raise RuntimeError("not of ONNX")
        self.name = path.name
        self.seen = []

    def get_inputs(self):
        shape = (1, 1, *INPUTS[self.name])
        states = [SimpleNamespace(name=name, shape=(1, 2)) for name in STATES.get(self.name, ())]
        return [SimpleNamespace(name="frame", shape=shape), *states]

    def run(self, outputs, given):
        assert outputs is None
        frame, *states = given.values()
        assert frame.dtype == np.float32 and all(state.dtype == np.float32 for state in states)
        self.seen.append(float(states[0].max()) if states else len(frame))
        made = {
            "model_1.onnx": np.ones_like,  # a mask
            "model_2.onnx": lambda block: block / 4,  # of as many overlapping blocks
            "gtcrn_simple.onnx": lambda spectrum: spectrum,
            "sig_bak_ovr.onnx": lambda windows: np.repeat(windows.max(-1)[:, None], 3, axis=1),
        }[self.name](frame)
        return [made, *(state + 1 for state in states)]


INPUTS = {
    "model_1.onnx": (257,),
    "model_2.onnx": (512,),
    "gtcrn_simple.onnx": (257, 1, 2),
    "sig_bak_ovr.onnx": (144_160,),
}
STATES = {"model_1.onnx": ["s"], "model_2.onnx": ["s"], "gtcrn_simple.onnx": ["a", "b", "c"]}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of the files of all networks."""
    made = []

    def session(*arguments):
        made.append(Session(*arguments))
        return made[-1]

    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    for name in INPUTS:
        (tmp_path / name).write_bytes(b"a model")
    return SimpleNamespace(folder=tmp_path, sessions=made)


@pytest.mark.parametrize(("name", "hop"), [("dtln", 128), ("gtcrn", 256)])
@pytest.mark.parametrize("length", [1, 1000, 4096])
def test_frames_come_together_to_the_sample_and_states_go_on(name, hop, length, models):
    system = denoisers.system(name, models.folder)
    speech = np.random.default_rng(0).standard_normal((1, length)).astype(np.float32)
    estimate = np.asarray(system.separate(speech, 0 * speech).speech)
    np.testing.assert_allclose(estimate, speech, atol=1e-6)
    for session in models.sessions:
        assert session.seen == list(range(len(session.seen)))
        assert length / hop + 1 <= len(session.seen) < length / hop + 5
    before = [list(session.seen) for session in models.sessions]
    system.separate(speech, 0 * speech)  # begins anew
    assert [session.seen for session in models.sessions] == [seen * 2 for seen in before]


@pytest.mark.parametrize(("seconds", "windows"), [(3.0, 3), (9.01, 1), (10.5, 1), (12.2, 3)])
def test_dnsmos_has_the_windows_and_the_scale_of_its_authors(seconds, windows, models):
    found = denoisers.dnsmos(models.folder)
    signal = np.full(round(16_000 * seconds), 2.0, np.float32)
    said = {name: measure(None, signal) for name, measure in found.items()}
    # The polynomials of the authors' script at 2.
    expected = {
        "dnsmos_sig": np.polyval([-0.08397278, 1.22083953, 0.0052439], 2),
        "dnsmos_bak": np.polyval([-0.13166888, 1.60915514, -0.39604546], 2),
        "dnsmos_ovr": np.polyval([-0.06766283, 1.11546468, 0.04602535], 2),
    }
    assert said == pytest.approx(expected) and tuple(found) == denoisers.MEASURES[3:]
    assert models.sessions[0].seen == [windows]  # once for the three


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("dtln", "model_2.onnx", None, "model_2.onnx is not there"),
        ("gtcrn", "gtcrn_simple.onnx", b"else", "gtcrn_simple.onnx: no ONNX model .*not of ONNX"),
        ("dnsmos", "sig_bak_ovr.onnx", None, "--dnsmos=.*sig_bak_ovr.onnx is not there"),
    ],
)
def test_files_that_cannot_be_used_are_named(name, file, content, message, models):
    path = models.folder / file
    path.unlink()
    if content:
        path.write_bytes(content)
    use = denoisers.dnsmos if name == "dnsmos" else lambda folder: denoisers.system(name, folder)
    with pytest.raises(ValueError, match=message):
        use(models.folder)


def test_the_model_of_another_is_refused(models, monkeypatch):
    monkeypatch.setitem(INPUTS, "model_1.onnx", (512,))
    with pytest.raises(ValueError, match=r"model_1.onnx: its input is \(1, 1, 512\).*\(257,\)"):
        denoisers.system("dtln", models.folder)


def test_a_file_that_is_no_model_is_refused_by_the_runtime_itself(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "gtcrn_simple.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="no ONNX model that can be run"):
        denoisers.system("gtcrn", tmp_path)


def test_flags_name_folders_and_records_the_files_in_them(models):
    with launching.defined("rotation"):
        denoisers.flags.FLAGS(
            ["", "--tools=", "--nolistening", f"--gtcrn={models.folder}"]
            + [f"--dnsmos={models.folder}", "--speech=S", "--noise=N"]
            + ["--open_speech=S", "--output=o.json"]
        )
        chosen = denoisers.from_flags()
    assert [system.method for system in chosen.systems] == ["gtcrn"]
    assert chosen.settings["tools"] == ["gtcrn"]
    assert chosen.settings["measures"] == list(denoisers.MEASURES[3:])
    digest = hashlib.sha256(b"a model").hexdigest()
    of_each = {"gtcrn": "gtcrn_simple.onnx", "dnsmos": "sig_bak_ovr.onnx"}
    assert chosen.settings["onnx"] == {name: {file: digest} for name, file in of_each.items()}


def test_as_a_program_a_tool_denoises_a_file(models):
    heard = np.random.default_rng(0).integers(-9999, 9999, 1000) / 2**15
    soundfile.write(models.folder / "x.wav", heard, 16000)
    paths = [str(models.folder / name) for name in ("x.wav", "y.wav")]
    for name in ("dtln", "gtcrn"):
        tools.main(*paths, name, str(models.folder))
        np.testing.assert_allclose(soundfile.read(paths[1])[0], heard, atol=2**-14)
    soundfile.write(models.folder / "x.wav", heard, 8000)
    with pytest.raises(ValueError, match="has 8000 Hz: give a file of 16000"):
        tools.main(*paths, "dtln", str(models.folder))

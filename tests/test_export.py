"""Exported models give what the Python stream gives."""

import dataclasses
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_model

from blsh_jax import export, streaming
from blsh_jax.config import StftConfig

HOP = 256


@pytest.fixture(scope="module")
def compiler():
    """A C compiler, or a visible skip."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler (cc, gcc or clang) to check the exported C with")
    return found


def golden(hops, seed=0):
    """Noise with loud, quiet and silent parts."""
    rng = np.random.default_rng(seed)
    gains = np.array([0.5, 0.01, 0.0])[np.arange(hops) // 8 % 3]
    return (rng.standard_normal((hops, HOP)) * gains[:, None]).astype(np.float32).reshape(-1)


def steps(used, noisy):
    """The stream's output, late by its latency."""
    noisy = jnp.asarray(noisy)
    return np.asarray(streaming.step(used, streaming.init(used.config), noisy[None])[1])[0]


def with_silence(noisy, used):
    """The signal, and as much silence as brings out what is held back."""
    return np.pad(noisy, (0, streaming.latency(used.config)))


def build(compiler, folder, *options):
    program = folder / "denoise"
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", *options]
    sources = [str(folder / "blsh.c"), str(folder / "example.c")]
    subprocess.run([compiler, *flags, "-o", str(program), *sources, "-lm"], check=True)
    return program


@pytest.mark.parametrize(
    ("kind", "context", "levels", "snr_weight", "voicing"),
    [
        ("magnitude", 1, 0, 0.0, 0),
        ("mel", 5, 0, 0.5, 20),
        ("magnitude", 3, 12, 0.0, 0),
        ("log_mel", 1, 32, 0.5, 32),
    ],
)
def test_c_gives_the_streams_output(compiler, tmp_path, kind, context, levels, snr_weight, voicing):
    used = random_model(kind, context, levels, snr_weight, voicing=voicing)
    files = export.write_c(used, tmp_path)
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    noisy = golden(90)
    done = subprocess.run(
        [build(compiler, tmp_path)], input=noisy.tobytes(), capture_output=True, check=True
    )
    out = np.frombuffer(done.stdout, np.float32)
    np.testing.assert_allclose(out, steps(used, with_silence(noisy, used)), atol=1e-6)


def test_c_allocates_nothing_and_touches_nothing_outside(compiler, tmp_path):
    used = random_model(context=3)
    export.write_c(used, tmp_path)
    assert "alloc" not in (tmp_path / "blsh.c").read_text()
    try:
        program = build(compiler, tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover")
    except subprocess.CalledProcessError:
        pytest.skip("the C compiler has no sanitizers")
    done = subprocess.run([program], input=golden(30)[:-100].tobytes(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) == with_silence(golden(30), used).nbytes


def test_c_of_a_trained_model_on_speech(compiler, tmp_path, trained, synthetic):
    used = trained[0]
    export.write_c(used, tmp_path)
    speech = np.asarray(synthetic[0].signals[0][: 90 * HOP], np.float32)
    noisy = speech + 0.02 * golden(90)[: len(speech)]
    noisy = noisy[: len(noisy) // HOP * HOP]
    done = subprocess.run(
        [build(compiler, tmp_path)], input=noisy.tobytes(), capture_output=True, check=True
    )
    out = np.frombuffer(done.stdout, np.float32)
    np.testing.assert_allclose(out, steps(used, with_silence(noisy, used)), atol=1e-6)


def test_the_c_code_compiles_as_cpp(compiler, tmp_path):
    export.write_c(random_model(), tmp_path)
    (tmp_path / "use.cc").write_text(
        '#include "blsh.h"\nint main() { static blsh_state s; blsh_init(&s); return 0; }\n'
    )
    command = [compiler, "-fsyntax-only", str(tmp_path / "use.cc")]
    assert subprocess.run(command, check=False).returncode == 0


def test_stablehlo_loads_runs_and_gives_the_same(tmp_path):
    pytest.importorskip("flatbuffers", reason="jax.export needs the package flatbuffers")
    used = random_model(context=3)
    export.write_stablehlo(used, tmp_path)
    facts = json.loads((tmp_path / "blsh_step.json").read_text())
    loaded = jax.export.deserialize(bytearray((tmp_path / "blsh_step.jax_export").read_bytes()))
    assert facts["latency_samples"] == streaming.latency(used.config)
    assert set(facts["platforms"]) == {"cpu", "cuda", "tpu"} == set(loaded.platforms)
    *state, hop = (jnp.zeros(a["shape"], a["dtype"]) for a in facts["arguments"])
    noisy, out = jnp.asarray(golden(40)), []
    for start in range(0, noisy.size, hop.size):
        *state, speech = loaded.call(*state, noisy[None, start : start + hop.size])
        out.append(speech[0])
    np.testing.assert_allclose(np.concatenate(out), steps(used, noisy), atol=1e-6)
    assert (tmp_path / "blsh_step.mlir").read_bytes()[:4] == b"ML\xefR"


def test_smaller_models_are_prefixes_and_subsets():
    used = random_model(num_frames=100)
    small = export.shrink(used, num_bits=20, num_frames=50)
    assert (small.hasher.num_bits, small.dictionary.num_frames) == (20, 50)
    np.testing.assert_array_equal(small.dictionary.masks, used.dictionary.masks[::2])
    np.testing.assert_array_equal(
        small.dictionary.codes[:, 0], used.dictionary.codes[::2, 0] & 0xFFFFF
    )
    for wrong in ({"num_frames": 9}, {"num_frames": 101}, {"num_bits": 41}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            export.shrink(used, **wrong)


def test_a_window_that_the_c_code_cannot_transform_is_refused(tmp_path):
    used = random_model()
    settings = dataclasses.replace(used.config, stft=StftConfig(window_length=768))
    with pytest.raises(ValueError, match="window_length is 768"):
        export.write_c(dataclasses.replace(used, config=settings), tmp_path)

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

from blsh_jax.config import StftConfig
from blsh_jax.corpora.audio import LOUDEST, QUIETEST
from blsh_jax.denoising import stream
from blsh_jax.export import costs, shrink, write_c, write_stablehlo
from blsh_jax.paper import spectra
from blsh_jax.robust import mask_stage
from blsh_jax.robust.bin_features import NUM_FEATURES
from blsh_jax.robust.ferns import STEP
from blsh_jax.robust.mask_stage import LOOK_AHEAD

HOP, HOPS = 256, 60


@pytest.fixture(scope="module")
def compiler():
    """A C compiler, or a visible skip."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler (cc, gcc or clang) to check the exported C with")
    return found


# The example, but with what ferns ask about in the place of sound.
SHOW_BYTES = """
#include <stdio.h>
#include "blsh.c"
static blsh_state state;
int main(void)
{
    float hop[BLSH_HOP];
    blsh_init(&state);
    while (fread(hop, sizeof *hop, BLSH_HOP, stdin) == BLSH_HOP) {
        blsh_step(&state, hop, hop);
        for (int d = 0; d < BLSH_BIN_FEATURES; d++)
            fwrite(state.bin_features[d], 1, BLSH_BINS, stdout);
    }
    return 0;
}
"""


def golden():
    """Noise with loud, quiet and silent parts."""
    gains = np.array([0.5, 0.01, 0.0])[np.arange(HOPS) // 8 % 3]
    noise = np.random.default_rng(0).standard_normal((HOPS, HOP))
    return (noise * gains[:, None]).astype(np.float32).reshape(-1)


def steps(used, noisy):
    """The stream's output, and what is held back at its end."""
    noisy = np.pad(noisy, (0, stream.latency(used)))[None]
    return np.asarray(stream.step(used, stream.init(used), jnp.asarray(noisy))[1])[0]


def build(compiler, folder, *options, sources=("blsh.c", "example.c")):
    program = folder / "denoise"
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", *options]
    paths = [str(folder / name) for name in sources]
    subprocess.run([compiler, *flags, "-o", str(program), *paths, "-lm"], check=True)
    return program


def run(program, noisy):
    done = subprocess.run([program], input=noisy.tobytes(), capture_output=True, check=True)
    assert done.stderr == b""
    return np.frombuffer(done.stdout, np.float32)


@pytest.mark.parametrize(
    ("kind", "context", "levels", "snr_weight", "voicing", "strength"),
    [
        ("magnitude", 1, 0, 0.0, 0, 1.0),
        ("mel", 3, 12, 0.5, 20, 1.5),
        ("log_mel", 1, 32, 0.5, 32, 1.0),
    ],
)
def test_c_gives_the_streams_output(
    compiler, tmp_path, kind, context, levels, snr_weight, voicing, strength
):
    used = random_model(kind, context, levels, snr_weight, voicing=voicing, strength=strength)
    files = write_c(used, tmp_path)
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    out = run(build(compiler, tmp_path, "-O2"), golden())
    np.testing.assert_allclose(out, steps(used, golden()), atol=1e-6)
    plain = build(compiler, tmp_path, "-O2", "-D__builtin_cpu_supports(x)=0")
    np.testing.assert_array_equal(run(plain, golden()), out)  # without an instruction to count


@pytest.mark.parametrize(
    ("kind", "context", "voicing", "ferns", "bits"),
    [("magnitude", 1, 0, 30, 8), ("mel", 3, 20, 7, 9)],
)
def test_c_asks_ferns_about_the_same_bytes(compiler, tmp_path, kind, context, voicing, ferns, bits):
    """Where rounding differs, a byte may be one off, and a fern find another value then."""
    used = random_model(kind, context, 0, 0.5, voicing=voicing, ferns=ferns, fern_bits=bits)
    write_c(used, tmp_path)
    (tmp_path / "bytes.c").write_text(SHOW_BYTES)
    found = run(build(compiler, tmp_path, "-O2", sources=["bytes.c"]), golden()).view(np.uint8)
    expected = bytes_asked_about(used, golden())
    apart = np.abs(found.reshape(expected.shape).astype(int) - expected)
    assert apart.max() <= 1 and np.mean(apart > 0) < 1e-3
    assert all(len(np.unique(feature)) > 8 for feature in expected.swapaxes(0, 1))


@pytest.mark.parametrize(("context", "voicing", "bits"), [(1, 0, 8), (3, 20, 9)])
def test_c_gives_the_streams_output_with_ferns(compiler, tmp_path, context, voicing, bits):
    used = random_model("mel", context, 12, 0.5, voicing=voicing, ferns=30, fern_bits=bits)
    write_c(used, tmp_path)
    out, expected = run(build(compiler, tmp_path, "-O2"), golden()), steps(used, golden())
    apart = np.abs(out - expected)
    # A byte that is one off (the test above) may cross a threshold, which changes a fern's value by
    # the range of its table at most and a gain by a quarter of that. It is heard for four hops: one
    # frame in which that happens is a fifteenth of the signal.
    flip = np.ptp(np.asarray(used.ferns[0].tables)) * STEP / 4
    assert np.mean(apart < 1e-6) > 0.9 and apart.max() < flip * np.abs(golden()).max()
    assert np.std(expected) > 0.01


def test_c_decides_as_the_stream_does(compiler, tmp_path, monkeypatch):
    monkeypatch.setattr(mask_stage, "SURE_SPEECH", -0.2)  # so that random masks reach both
    monkeypatch.setattr(mask_stage, "SURE_NOISE", 0.3)
    used = random_model("mel", 3, 0, 0.5, strength=1.25, decisiveness=1.7)
    write_c(used, tmp_path)
    out = run(build(compiler, tmp_path, "-O2"), golden())
    np.testing.assert_allclose(out, steps(used, golden()), atol=1e-6)
    plain = random_model("mel", 3, 0, 0.5, strength=1.25)
    assert np.abs(out - steps(plain, golden())).max() > 1e-3


def bytes_asked_about(used, noisy):
    """(T, D, F): features of the frame whose mask is made at each hop."""
    function = used.mask_function
    newest = spectra.stft(jnp.asarray(noisy)[None], used.separation.stft)[:, :HOPS]
    _, values = function.features(function.init((1,)), newest)
    return np.asarray(values)[:, 0].swapaxes(0, 1).astype(int)


def test_c_takes_samples_that_nothing_can_be_made_of_as_silence_like_the_stream(compiler, tmp_path):
    used = random_model("mel", 3, 12, 0.5, voicing=20)
    write_c(used, tmp_path)
    bad, silent = golden(), golden()
    places = np.random.default_rng(1).integers(0, len(bad), 50)
    unusable = [np.nan, -np.nan, np.inf, -np.inf, 2 * LOUDEST, -3e38, QUIETEST / 2, -1e-45]
    bad[places], silent[places] = np.resize(np.float32(unusable), 50), 0
    for options in (["-O2"], ["-O3", "-ffast-math"]):
        program = build(compiler, tmp_path, *options)
        out = run(program, bad)
        np.testing.assert_array_equal(out, run(program, silent))
        np.testing.assert_allclose(out, steps(used, bad), atol=1e-6)
    for extreme in (LOUDEST, QUIETEST):
        out = run(program, np.resize(np.float32([extreme, -extreme]), 8 * HOP))
        assert np.isfinite(out).all() and np.abs(out).max() > extreme / 1000


@pytest.mark.parametrize(("voicing", "ferns", "bits"), [(20, 0, 8), (20, 5, 9), (0, 5, 8)])
def test_c_allocates_nothing_touches_nothing_outside_and_is_cpp_too(
    compiler, tmp_path, voicing, ferns, bits
):
    used = random_model("mel", 3, 12, 0.5, voicing=voicing, ferns=ferns, fern_bits=bits)
    write_c(used, tmp_path)
    assert "alloc" not in (tmp_path / "blsh.c").read_text()
    (tmp_path / "use.cc").write_text(
        '#include "blsh.h"\nint main() { static blsh_state s; blsh_init(&s); return 0; }\n'
    )
    subprocess.run([compiler, "-fsyntax-only", str(tmp_path / "use.cc")], check=True)
    try:
        sanitizers = "-fsanitize=address,undefined,float-cast-overflow"
        program = build(compiler, tmp_path, sanitizers, "-fno-sanitize-recover")
    except subprocess.CalledProcessError:
        pytest.skip("the C compiler has no sanitizers")
    out = run(program, golden()[:-100])
    assert len(out) == len(golden()) + stream.latency(used)
    for extreme in (LOUDEST, QUIETEST):
        assert np.isfinite(run(program, np.resize(np.float32([extreme, -extreme]), 8 * HOP))).all()


@pytest.mark.slow
def test_c_of_a_trained_model_on_speech(compiler, tmp_path, trained, synthetic):
    write_c(trained[0], tmp_path)
    noisy = golden() + np.asarray(synthetic[0].signals[0][: HOPS * HOP], np.float32)
    out = run(build(compiler, tmp_path, "-O2"), noisy)
    np.testing.assert_allclose(out, steps(trained[0], noisy), atol=1e-6)


@pytest.mark.parametrize("ferns", [0, 5])
def test_stablehlo_loads_runs_and_gives_the_same(tmp_path, ferns):
    pytest.importorskip("flatbuffers", reason="jax.export needs the package flatbuffers")
    used = random_model(context=3, levels=12, snr_weight=0.5, ferns=ferns, second_ferns=ferns)
    write_stablehlo(used, tmp_path)
    facts = json.loads((tmp_path / "blsh_step.json").read_text())
    loaded = jax.export.deserialize(bytearray((tmp_path / "blsh_step.jax_export").read_bytes()))
    used = used.without_look_ahead()
    assert facts["latency_samples"] == stream.latency(used)
    assert set(facts["platforms"]) == {"cpu", "cuda", "tpu"} == set(loaded.platforms)
    names = [argument["name"] for argument in facts["arguments"]]
    assert len(set(names)) == len(names) and names[0] == "samples" and names[-1] == "hop"
    assert any(name.endswith(".noise_magnitude") for name in names)
    *state, hop = (jnp.zeros(a["shape"], a["dtype"]) for a in facts["arguments"])
    call, noisy, out = jax.jit(loaded.call), jnp.asarray(golden()), []
    for start in range(0, noisy.size, hop.size):
        *state, speech = call(*state, noisy[None, start : start + hop.size])
        out.append(speech[0])
    expected = steps(used, golden())[: noisy.size]
    np.testing.assert_allclose(np.concatenate(out), expected, atol=1e-6)
    assert (tmp_path / "blsh_step.mlir").read_bytes()[:4] == b"ML\xefR"


def test_smaller_models_are_prefixes_and_subsets():
    used = random_model(num_frames=100, ferns=5)
    small = shrink(used, num_bits=20, num_frames=50)
    assert small.ferns is used.ferns
    assert (small.hasher.num_bits, small.dictionary.num_frames) == (20, 50)
    np.testing.assert_array_equal(small.dictionary.masks, used.dictionary.masks[::2])
    np.testing.assert_array_equal(
        small.dictionary.codes[:, 0], used.dictionary.codes[::2, 0] & 0xFFFFF
    )
    for wrong in ({"num_frames": 9}, {"num_frames": 101}, {"num_bits": 41}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            shrink(used, **wrong)


def test_costs_of_ferns(monkeypatch):
    without, few, more = (random_model(snr_weight=0.5, ferns=count) for count in (0, 5, 8))
    assert "ferns" not in costs.model_bytes(without)
    assert costs.model_bytes(more)["ferns"] == 8 * (2 * 8 + 2 * 256)
    # A fern of 8 questions: 8 comparisons, doublings and additions, a look-up and a sum.
    assert costs.cost(more).masks - costs.cost(few).masks == 513 * 3 * (3 * 8 + 2)
    added = costs.cost(few).masks - costs.cost(without).masks - 513 * 5 * (3 * 8 + 2)
    assert added > 513 * NUM_FEATURES  # an operation for each byte, and more
    assert costs.cost(few).features > costs.cost(without).features  # the comb
    voiced = (random_model(voicing=20, ferns=count) for count in (0, 5))
    assert len({costs.cost(used).features for used in voiced}) == 1  # is there already
    monkeypatch.setattr(costs, "real_time_factor", lambda *_: 0.1)
    facts = costs.describe(more)
    assert (facts["ferns"], facts["fern_bits"]) == ([8], 8)
    assert facts["latency_samples"] == facts["live_latency_samples"] == 768
    assert "8 ferns of 8 bits\n" in costs.text(facts, one_core=True)
    twice = random_model(snr_weight=0.5, ferns=8, second_ferns=3)
    assert costs.cost(twice).masks > costs.cost(more).masks + added + 513 * 3 * (3 * 8 + 2)
    facts = costs.describe(twice)
    assert facts["latency_samples"] - facts["live_latency_samples"] == LOOK_AHEAD * 256
    assert "8 ferns of 8 bits; then 3 ferns of 8 bits, which look" in costs.text(facts, True)


def test_a_window_that_the_c_code_cannot_transform_is_refused(tmp_path):
    used = random_model()
    separation = dataclasses.replace(used.separation, stft=StftConfig(window_length=768))
    other = dataclasses.replace(used.config, separation=separation)
    with pytest.raises(ValueError, match="window_length is 768"):
        write_c(dataclasses.replace(used, config=other), tmp_path)

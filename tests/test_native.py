"""How the native kernel is built, kept and refused; test_search has what it finds."""

import os
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile

from blsh_jax import search
from blsh_jax.search import native
from tests.test_search import assert_exact, oracle

RNG = np.random.default_rng(0)
QUERIES, CODES = (RNG.integers(0, 4, (rows, 3), dtype=np.uint32) for rows in (5, 600))


@pytest.fixture
def folder(natively, tmp_path, monkeypatch):
    """A folder with a library of its own."""
    with natively() as built:
        content = {path.name: path.read_bytes() for path in built.iterdir()}
        monkeypatch.setenv("BLSH_NATIVE", str(tmp_path))
        for name, made in content.items():
            (tmp_path / name).write_bytes(made)
        yield tmp_path


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of one kind")
@pytest.mark.parametrize(("march", "instructions"), [("x86-64-v3", "AVX2"), ("x86-64-v2", "plain")])
def test_kernels_for_older_processors_find_the_same(folder, march, instructions):
    native.build(march)
    assert native.instructions().startswith(instructions) and len([*folder.iterdir()]) == 1
    jax.clear_caches()
    for num_bits, num_queries, size, k in [
        *((1, 5, 70, 70), (33, 3, 9000, 10), (160, 40, 3000, 10), (254, 40, 700, 128)),
        *((255, 9, 1000, 10), (700, 9, 1000, 10), (64, 1, 30_000, 10)),
    ]:
        words = (num_queries + size, -(-num_bits // 32))
        codes = RNG.integers(0, 1 << 32, words, dtype=np.uint32)
        codes[:, -1] &= np.uint32(0xFFFFFFFF >> -num_bits % 32)
        codes[num_queries + size // 2 :] = codes[num_queries]  # many are equal
        found = search.hamming_top_k(codes[:num_queries], codes[num_queries:], k, num_bits)
        assert_exact(found, oracle(codes[:num_queries], codes[num_queries:], k))


@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: b""])
def test_a_damaged_library_is_named_once_and_not_used(folder, damage):
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(RuntimeWarning, match=f"{path.name} is not used .*blsh native"):
        assert native.target() is None
    assert_exact(search.hamming_top_k(QUERIES, CODES, 7), oracle(QUERIES, CODES, 7))


def test_a_library_of_another_version_or_processor_is_not_looked_at(folder):
    (path,) = folder.iterdir()
    path.rename(folder / path.name.replace(native._key(), "0" * 16))
    assert native.target() is None
    native.build("native")
    assert native.target() and len([*folder.iterdir()]) == 1
    assert native.remove() and native.target() is None and not [*folder.iterdir()]


def test_what_is_wrong_with_a_compiler_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("BLSH_NATIVE", str(tmp_path / "none"))
    for compiler, message in (
        ("/bin/false", "false fails: it says nothing"),
        ("/no/compiler", "/no/compiler does not run"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"error: odd\")'", "fails: error: odd"),
    ):
        monkeypatch.setenv("CXX", compiler)
        with pytest.raises(RuntimeError, match=message):
            native.build()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler: install"):
        native.build()
    monkeypatch.setenv("BLSH_NATIVE", "0")
    with pytest.raises(RuntimeError, match="BLSH_NATIVE=0 is set"):
        native.build()
    assert not (tmp_path / "none").exists()


def test_searches_inside_off_are_traced_without_it(folder):
    traced = lambda: "custom_call" in search.hamming_top_k.lower(QUERIES, CODES, 7).as_text()
    assert traced()
    with native.off():
        assert not traced()
    assert traced()


def test_the_command_builds_checks_and_removes(natively, tmp_path):
    environment = os.environ | {"BLSH_NATIVE": str(tmp_path)}
    command = [sys.executable, "-m", "blsh_jax", "native"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "the same neighbours" in done.stdout, done.stderr
    (path,) = tmp_path.iterdir()
    assert f"built {path} for " in done.stdout
    done = subprocess.run([*command, "--remove"], env=environment, capture_output=True, text=True)
    assert done.stdout == f"removed {path}\n" and not [*tmp_path.iterdir()]


def test_a_program_that_was_kept_with_it_is_not_loaded_without_it(natively, model_file, tmp_path):
    sound, cache = tmp_path / "x.wav", tmp_path / "cache"
    soundfile.write(sound, 0.1 * RNG.standard_normal(6000), 16_000)
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    command = [sys.executable, "-m", "blsh_jax", "denoise", f"--model={model_file}", "--quiet"]
    outputs, programs = [], []
    with natively() as folder:
        for index, value in enumerate([str(folder), str(folder), "0"]):
            output = tmp_path / f"{index}.wav"
            environment = known | {"XDG_CACHE_HOME": str(cache), "BLSH_NATIVE": value}
            subprocess.run([*command, sound, output], env=environment, check=True)
            outputs.append(output.read_bytes())
            programs.append(len([*cache.rglob("*.program")]))
    assert outputs[0] == outputs[1] == outputs[2]
    assert programs == [3, 3, 6]

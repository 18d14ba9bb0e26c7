"""Programs in files: as the function, found again by what decides them, whole or made anew."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import kept


class Pair(NamedTuple):
    total: jax.Array
    scaled: jax.Array


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to keep programs in, and none in memory."""
    monkeypatch.setattr(kept, "_folder", tmp_path)
    monkeypatch.setattr(kept, "_programs", {})
    return tmp_path


def counted(traced):
    """A kept function that notes each time it is traced."""

    def pair(values, factor, offset):
        traced.append(offset)
        return Pair(jnp.sum(values["x"]) + offset, values["x"] * factor)

    return kept.jit(pair, static_argnames=("offset",))


def check(result, offset):
    np.testing.assert_array_equal(result.total, 3 + offset)
    np.testing.assert_array_equal(result.scaled, [0, 2, 4])


ARGUMENTS = {"x": np.arange(3, dtype=np.float32)}, np.float32(2)


def test_a_program_is_traced_once_and_then_read_by_all_that_decides_it(folder, monkeypatch):
    traced = []
    for offset in (1, 1, 2):
        check(counted(traced)(*ARGUMENTS, offset), offset)
    assert traced == [1, 2] and len([*folder.glob("*.program")]) == 2
    monkeypatch.setattr(kept, "_programs", {})  # as another process begins
    check(counted(traced)(*ARGUMENTS, 2), 2)
    assert traced == [1, 2]
    longer = {"x": np.arange(4, dtype=np.float32)}, np.float32(2)
    np.testing.assert_array_equal(counted(traced)(*longer, 2).scaled, [0, 2, 4, 6])
    assert traced == [1, 2, 2]
    for _ in range(2):
        check(counted(traced)(ARGUMENTS[0], 2.0, 1), 1)  # a number of Python
    assert traced == [1, 2, 2, 1]
    monkeypatch.setattr(kept, "_folder", None)
    check(counted(traced)(*ARGUMENTS, 3), 3)
    assert len([*folder.glob("*.program")]) == 4


def test_inside_other_functions_it_is_a_part_of_them(folder):
    function, (values, factor) = counted([]), ARGUMENTS
    check(jax.jit(lambda values: function(values, factor, 1))(values), 1)
    rows = {"x": np.stack([values["x"], values["x"]])}
    mapped = jax.vmap(lambda values: function(values, factor, 1))(rows)
    np.testing.assert_array_equal(mapped.total, [4, 4])
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[::-1]])
def test_a_damaged_file_is_written_anew_and_the_oldest_go(folder, monkeypatch, damage):
    traced = []
    check(counted(traced)(*ARGUMENTS, 1), 1)
    (path,) = folder.glob("*.program")
    size = path.stat().st_size
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(kept, "_programs", {})
    check(counted(traced)(*ARGUMENTS, 1), 1)
    assert traced == [1, 1] and path.stat().st_size == pytest.approx(size, rel=0.1)
    monkeypatch.setattr(kept, "_MOST_FILES", 1)
    check(counted(traced)(*ARGUMENTS, 2), 2)
    assert len([*folder.glob("*.program")]) == 1 and not path.exists()


def test_two_threads_wait_for_one_compilation_and_a_failure_is_told_to_both(folder):
    traced, inside, go_on = [], threading.Event(), threading.Event()

    def slow(values):
        traced.append(values)
        inside.set()
        assert go_on.wait(60)
        if values.shape[0] == 1:
            raise ValueError("no program")
        return values + 1

    function, least = kept.jit(slow), jax.config.jax_persistent_cache_min_compile_time_secs
    with ThreadPoolExecutor(2) as pool:
        for size in (2, 1):
            inside.clear(), go_on.clear(), traced.clear()
            calls = [pool.submit(function, np.zeros(size, np.float32)) for _ in range(2)]
            assert inside.wait(60)
            go_on.set()
            if size == 2:
                for call in calls:
                    np.testing.assert_array_equal(call.result(), [1, 1])
                assert len(traced) == 1
            else:
                assert all("no program" in str(call.exception()) for call in calls)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == least
    with pytest.raises(ValueError, match="no program"):  # and nothing of it is remembered
        function(np.zeros(1, np.float32))


def test_a_program_that_is_looked_up_once_takes_what_is_not_static(folder, monkeypatch):
    traced = []
    function = counted(traced)
    check(function.program(*ARGUMENTS, 1)(*ARGUMENTS), 1)
    check(function(*ARGUMENTS, 1), 1)
    assert traced == [1]
    monkeypatch.setattr(kept, "_folder", None)
    check(function.program(*ARGUMENTS, 1)(*ARGUMENTS), 1)

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from blsh_jax import search


def in_two_processes(program, *arguments, num_devices):
    """Run a program in two processes, with its number and an address before the arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number), address, *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


def random_words(rng, rows):
    """Few distinct codes, so that ties cross the borders of shards."""
    return rng.integers(0, 1 << 6, (rows, 2), dtype=np.uint32)


@pytest.mark.parametrize("shape", [(1, 8), (2, 4)])
def test_equals_the_search_on_one_device(path, shape):
    rng = np.random.default_rng(0)
    queries, dictionary = random_words(rng, 64), random_words(rng, 8000)
    mesh = jax.make_mesh(shape, ("queries", "dictionary"))
    found = search.sharded_hamming_top_k(queries, dictionary, 10, mesh)
    expected = search.hamming_top_k(queries, dictionary, 10)
    prepared = search.prepare(dictionary, mesh)
    again = search.sharded_hamming_top_k(queries, prepared, 10, mesh)
    for each in (found, again):
        np.testing.assert_array_equal(each.distances, expected.distances)
        np.testing.assert_array_equal(each.indices, expected.indices)
    with pytest.raises(ValueError, match="prepare them anew"):
        search.sharded_hamming_top_k(queries, search.prepare(dictionary), 10, mesh)


def test_sizes_that_do_not_divide_are_named():
    mesh = jax.make_mesh((2, 4), ("queries", "dictionary"))
    with pytest.raises(ValueError, match="dictionary_codes has 8001 rows"):
        search.sharded_hamming_top_k(
            np.zeros((64, 2), np.uint32), np.zeros((8001, 2), np.uint32), 10, mesh
        )


PROCESS = """
import sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=int(sys.argv[1]))
from jax.sharding import NamedSharding, PartitionSpec
from blsh_jax import search

rng = np.random.default_rng(0)
queries = rng.integers(0, 64, (16, 2), dtype=np.uint32)
dictionary = rng.integers(0, 64, (4000, 2), dtype=np.uint32)
mesh = jax.make_mesh((1, 4), ("queries", "dictionary"))

def shared(array, axis):
    sharding = NamedSharding(mesh, PartitionSpec(axis, None))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

found = search.sharded_hamming_top_k(
    shared(queries, "queries"), shared(dictionary, "dictionary"), 10, mesh
)
distances = np.bitwise_count(queries[:, None] ^ dictionary[None]).sum(-1)
order = np.argsort(distances, axis=1, kind="stable")[:, :10]
mine = np.asarray(found.indices.addressable_shards[0].data)
assert mine.shape == (16, 10) and (mine == order).all()
jax.distributed.shutdown()
"""


def test_two_processes():
    in_two_processes(PROCESS, num_devices=2)

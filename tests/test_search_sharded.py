import socket
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from blsh_jax import search


def random_words(rng, rows):
    """Few distinct codes, so that ties cross the borders of shards."""
    return rng.integers(0, 1 << 6, (rows, 2), dtype=np.uint32)


@pytest.mark.parametrize("shape", [(1, 8), (2, 4)])
def test_equals_the_search_on_one_device(shape):
    rng = np.random.default_rng(0)
    queries, dictionary = random_words(rng, 64), random_words(rng, 8000)
    mesh = jax.make_mesh(shape, ("queries", "dictionary"))
    found = search.sharded_hamming_top_k(queries, dictionary, 10, mesh)
    expected = search.hamming_top_k(queries, dictionary, 10)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_sizes_that_do_not_divide_are_named():
    mesh = jax.make_mesh((2, 4), ("queries", "dictionary"))
    with pytest.raises(ValueError, match="dictionary_codes has 8001 rows"):
        search.sharded_hamming_top_k(
            np.zeros((64, 2), np.uint32), np.zeros((8001, 2), np.uint32), 10, mesh
        )


PROCESS = textwrap.dedent(
    """
    import sys
    import jax, numpy as np
    jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
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
    print("exact")
    """
)


def test_two_processes(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        free_port = probe.getsockname()[1]
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "PATH": "/usr/bin"}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, str(script), f"localhost:{free_port}"]
    processes = [
        subprocess.Popen([*command, str(index)], env=environment, **options) for index in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert all(output.endswith("exact\n") for output in outputs), outputs

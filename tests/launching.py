"""Launches run inside the process of the tests, which has JAX loaded and its functions compiled."""

import contextlib
import importlib
from unittest import mock

from absl import flags

from blsh_jax.commands import launch


@contextlib.contextmanager
def defined(name):
    """The module of a launch, with its flags defined meanwhile."""
    module, before = _module(name), set(flags.FLAGS)
    try:
        module._define_flags()
        yield module
    finally:
        _forget(before)


def run(name, *arguments):
    """Run a launch: None where all went well, else its message or exit status."""
    module, before = _module(name), set(flags.FLAGS)
    try:
        with mock.patch("sys.argv", [name, *map(str, arguments)]):
            launch.run(module._define_flags, module.main)
    except SystemExit as stopped:
        return stopped.code
    finally:
        _forget(before)
    return None


def _module(name):
    room = "blsh_jax.commands" if name in ("train", "evaluate") else "experiments"
    return importlib.import_module(f"{room}.{name}")


def _forget(before):
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()

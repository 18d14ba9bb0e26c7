"""Launches that the package holds, and the flags of all launches."""

from blsh_jax.commands import launch  # first, as it says which extra is missing

__all__ = ["launch"]

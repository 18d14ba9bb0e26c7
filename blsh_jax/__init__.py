"""Boosted Locality Sensitive Hashing in JAX."""

from blsh_jax._version import __version__

__all__ = ["__version__"]

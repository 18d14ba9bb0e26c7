"""Models for other runtimes, and what they cost."""

from blsh_jax.export.runtimes import shrink, write_c, write_stablehlo

__all__ = ["shrink", "write_c", "write_stablehlo"]

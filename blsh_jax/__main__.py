"""``python -m blsh_jax`` is the ``blsh`` command."""

from blsh_jax.cli import main

main()

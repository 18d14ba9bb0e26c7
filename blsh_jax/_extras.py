"""Packages that only a part of the library needs: which extra of the installation brings them."""

import contextlib
from collections.abc import Iterator


class MissingExtraError(ImportError):
    """A package is not installed that an extra of ``blsh_jax`` brings."""


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports inside it say which extra they need, where they fail.

    Args:
        name: of the extra in pyproject.toml.

    Raises:
        MissingExtraError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the extra {name!r}: pip install 'blsh_jax[{name}]'"
        ) from error

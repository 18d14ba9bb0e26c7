"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` only when the block ends well.

    Args:
        path: the file to write; missing folders are made. The temporary name keeps its suffix, as
            writers of audio choose their format by it.

    Yields:
        The temporary path, on the same file system, to be written by the block. It is removed when
        the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

"""Fetch openly licensed corpora for the paper's protocol.

    python -m experiments.download --names train-clean-5,dev-clean-2,DKITCHEN --output DIR

Takes as long as the network does: train-clean-5 is 333 MB, an environment of DEMAND about 100 MB.
Prints the licence, shows progress, goes on where an earlier call stopped, checks sums, and unpacks
into DIR/speech and DIR/noise, the layouts that the other launches recognise. Needs pooch:
pip install 'blsh_jax[download]'. TIMIT and the Duan noises are read from where you have them.
"""

import contextlib
import dataclasses
import errno
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from absl import app, flags
from tqdm import tqdm

LIBRISPEECH_LICENCE = (
    "LibriSpeech: V. Panayotov, G. Chen, D. Povey, S. Khudanpur, ICASSP 2015; CC BY 4.0"
)
DEMAND_LICENCE = (
    "DEMAND: J. Thiemann, N. Ito, E. Vincent, 2013, doi 10.5281/zenodo.1227121; CC BY-SA 3.0"
)
_CHUNK = 1 << 14  # what a cut transfer loses at most
_ROOM = 1.1  # what unpacking needs besides, as a part of the archive's size
_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        name: what the user calls it.
        url: where it is.
        md5: its sum.
        licence: whose work it is, and its terms.
        part: ``speech`` or ``noise``, the folder that it is unpacked into.
        size: bytes, None if the publisher does not say.
    """

    name: str
    url: str
    md5: str
    licence: str
    part: Literal["speech", "noise"]
    size: int | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[1]


class DownloadError(RuntimeError):
    """A transfer that did not end well: which archive, what happened, what to do."""


def _librispeech(name: str, resource: int, size: int, md5: str) -> Archive:
    url = f"https://www.openslr.org/resources/{resource}/{name}.tar.gz"
    return Archive(name, url, md5, LIBRISPEECH_LICENCE, "speech", size)


def _demand(name: str, md5: str) -> Archive:
    url = f"https://zenodo.org/records/1227121/files/{name}_16k.zip"
    return Archive(name, url, md5, DEMAND_LICENCE, "noise")


ARCHIVES: dict[str, Archive] = {
    archive.name: archive
    for archive in (
        _librispeech("dev-clean", 12, 337_926_286, "42e2234ba48799c1f50f24a7926300a1"),
        _librispeech("test-clean", 12, 346_663_984, "32fa31d27d2e1cad72775fee3f4849a9"),
        _librispeech("train-clean-100", 12, 6_387_309_499, "2a93770f6d5c6c964bc36631d331a522"),
        _librispeech("train-clean-5", 31, 332_954_390, "5df7d4e78065366204ca6845bb08f490"),
        _librispeech("dev-clean-2", 31, 126_046_265, "6d7ab67ac6a1d2c993d050e16d61080d"),
        _demand("DKITCHEN", "7ffbf52d7f4699f96927846103dc8788"),
        _demand("DLIVING", "46741384d9e434a0bd8b3ec1830b6052"),
        _demand("DWASHING", "7e5ee9437ce9409c5f9a779b6212a240"),
        _demand("NFIELD", "a740046c6f4e174e16f5d568aaec5024"),
        _demand("NPARK", "80f1385a34d7f1705758926b57f138ce"),
        _demand("NRIVER", "54264db61d3fe073fb81f2e40e0d19b5"),
        _demand("OHALLWAY", "fe918bbb0e63e73d09ba7f4843ef33f1"),
        _demand("OMEETING", "62f7cfe7fe6d30b7d8a215fe37c2dfd2"),
        _demand("OOFFICE", "7b61cc2d182d5a654cb9c3101ddd4041"),
        _demand("PCAFETER", "99927d148128254141a9417d051510bb"),
        _demand("PRESTO", "b98d2e6854eeebb397f29a8ad7457092"),
        _demand("PSTATION", "d7448009f6c2aeb6ba570375df1750a3"),
        _demand("SPSQUARE", "205d0e7b8fe74504a2f8d252fc414b9e"),
        _demand("STRAFFIC", "2efa87262f272bbf9ba578088e81939c"),
        _demand("TBUS", "706b11b0d8504f9f3b3f3211e91b3863"),
        _demand("TCAR", "4d930012796bd298932245a26189f973"),
        _demand("TMETRO", "95daf4df678e13b120e14211e6d89571"),
    )
}


def download(archives: Sequence[Archive], folder: Path) -> None:
    """Fetch, check and unpack archives; what an earlier call finished is left alone.

    Args:
        archives: what to fetch.
        folder: gets ``speech`` and ``noise``; archives are removed once they are unpacked.

    Raises:
        DownloadError: the connection broke (the next call goes on from there), the sum is wrong
            (nothing is kept), the disk is full, or the server has no such file.
    """
    for licence in dict.fromkeys(archive.licence for archive in archives):
        print(licence)
    for archive in archives:
        done = folder / ".complete" / archive.name
        if done.is_file():
            print(f"{archive.name}: already there")
            continue
        path = fetch(archive, folder)
        with _disk_errors(archive, folder):
            unpack(path, folder / archive.part)
            done.parent.mkdir(exist_ok=True)
            done.write_text(archive.md5 + "\n")
        path.unlink()


def fetch(archive: Archive, folder: Path) -> Path:
    """Fetch one archive whole, with its sum checked, and return its path.

    Args:
        archive: what to fetch.
        folder: where it goes.

    Raises:
        DownloadError: as ``download``.
    """
    import pooch
    import requests

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.file_name}.part"

    def resume(url: str, output_file: str, _: object) -> None:
        _transfer(archive, url, part)
        os.replace(part, output_file)

    try:
        with _disk_errors(archive, folder):
            found = pooch.retrieve(
                archive.url, f"md5:{archive.md5}", archive.file_name, folder, downloader=resume
            )
    except requests.exceptions.RequestException as error:
        raise DownloadError(
            f"{archive.name}: the connection to {archive.url} failed ({error}); the same command "
            f"goes on from {part.stat().st_size if part.exists() else 0} bytes"
        ) from error
    except ValueError as error:
        raise DownloadError(
            f"{archive.name}: the sum of {archive.url} is wrong ({error}); nothing was kept, the "
            "same command starts again"
        ) from error
    return Path(found)


def _transfer(archive: Archive, url: str, part: Path) -> None:
    """Append to ``part`` what it lacks."""
    import requests

    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is lacking; the sum says whether it is the right file
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            there = 0  # a server that cannot go on in the middle starts at the beginning
        total = there + int(response.headers.get("Content-Length", 0)) or archive.size
        _check_room(archive, part.parent, (total or 0) - there)
        bar = tqdm(total=total, initial=there, desc=archive.name, unit="B", unit_scale=True)
        with bar, open(part, "ab" if there else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total and part.stat().st_size < total:
        raise requests.exceptions.ConnectionError(f"cut at {part.stat().st_size} of {total} bytes")


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into a folder; a file appears whole or not at all.

    Args:
        path: ``.tar.gz`` or ``.zip``.
        folder: where its tree goes.

    Raises:
        ValueError: an entry lies outside of the folder.
    """
    temporary = folder / f".{path.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        if path.suffix == ".zip":
            _unpack_zip(path, temporary)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(temporary, filter="data")
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except tarfile.FilterError as error:
        raise ValueError(f"{path}: an entry would lie outside of {folder} ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{path}: entry {name!r} would lie outside of {folder}")
        archive.extractall(folder)


def _check_room(archive: Archive, folder: Path, missing: int) -> None:
    """Refuse before the first byte what cannot end well."""
    free = shutil.disk_usage(folder).free
    if missing * (1 + _ROOM) > free:
        raise OSError(errno.ENOSPC, f"{archive.name} needs {missing * (1 + _ROOM):.0f} bytes")


@contextlib.contextmanager
def _disk_errors(archive: Archive, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DownloadError(
            f"{archive.name}: the disk of {folder} is full ({error.strerror}): make room, and the "
            "same command goes on"
        ) from error


def main(argv: list[str]) -> None:
    """Flags, library."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    values = flags.FLAGS
    unknown = [name for name in values.names if name not in ARCHIVES]
    if unknown:
        raise app.UsageError(f"--names: no {unknown[0]!r}; choose from {', '.join(ARCHIVES)}")
    chosen = [ARCHIVES[name] for name in values.names]
    if values.mirror is not None:
        mirror = values.mirror.rstrip("/")
        chosen = [dataclasses.replace(a, url=f"{mirror}/{a.file_name}") for a in chosen]
    try:
        download(chosen, Path(values.output))
    except DownloadError as error:
        raise SystemExit(str(error)) from error
    except ImportError as error:
        raise SystemExit(f"{error}: pip install 'blsh_jax[download]'") from error


def run() -> None:
    """Entry point."""
    flags.DEFINE_list("names", None, f"What to fetch: {', '.join(ARCHIVES)}.", required=True)
    flags.DEFINE_string("output", None, "Folder that gets speech and noise.", required=True)
    flags.DEFINE_string("mirror", None, "Take every archive from this address instead.")
    app.run(main)


if __name__ == "__main__":
    run()

"""Fetch openly licensed corpora for the paper's protocol.

    python -m experiments.download --names train-clean-5,dev-clean-2,DKITCHEN --output DIR

Takes as long as the network does: train-clean-5 is 333 MB, an environment of DEMAND about 100 MB.
Prints the licence, shows progress, goes on where an earlier call stopped, checks sums, and unpacks
into DIR/speech and DIR/noise, the layouts that the other launches recognise. Needs pooch:
pip install 'blsh_jax[download]'. TIMIT and the Duan noises are read from where you have them.
"""

import dataclasses
import errno
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from absl import flags
from tqdm import tqdm

from blsh_jax._extras import extra
from blsh_jax.commands import launch

if not hasattr(tarfile, "data_filter"):
    with extra("download"):
        from backports import tarfile  # type: ignore[no-redef]

_LIBRISPEECH = "LibriSpeech: V. Panayotov, G. Chen, D. Povey, S. Khudanpur, ICASSP 2015; CC BY 4.0"
_DEMAND = "DEMAND: J. Thiemann, N. Ito, E. Vincent, 2013, doi 10.5281/zenodo.1227121; CC BY-SA 3.0"
_CHUNK = 1 << 14  # what a cut transfer loses at most
_ROOM = 2.1  # what an archive and its contents need, in units of its size
_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        url: where it is.
        md5: its sum.
        licence: whose work it is, and its terms.
        part: ``speech`` or ``noise``, the folder that it is unpacked into.
    """

    url: str
    md5: str
    licence: str
    part: Literal["speech", "noise"]

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[1]


class DownloadError(OSError):
    """A transfer that did not end well: which archive, what happened, what to do."""


# Resource of openslr.org and sum; environment of DEMAND to its sum.
_SPEECH_SUMS = {
    "dev-clean": (12, "42e2234ba48799c1f50f24a7926300a1"),
    "test-clean": (12, "32fa31d27d2e1cad72775fee3f4849a9"),
    "train-clean-100": (12, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-5": (31, "5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": (31, "6d7ab67ac6a1d2c993d050e16d61080d"),
}
_NOISE_SUMS = {
    "DKITCHEN": "7ffbf52d7f4699f96927846103dc8788",
    "DLIVING": "46741384d9e434a0bd8b3ec1830b6052",
    "DWASHING": "7e5ee9437ce9409c5f9a779b6212a240",
    "NFIELD": "a740046c6f4e174e16f5d568aaec5024",
    "NPARK": "80f1385a34d7f1705758926b57f138ce",
    "NRIVER": "54264db61d3fe073fb81f2e40e0d19b5",
    "OHALLWAY": "fe918bbb0e63e73d09ba7f4843ef33f1",
    "OMEETING": "62f7cfe7fe6d30b7d8a215fe37c2dfd2",
    "OOFFICE": "7b61cc2d182d5a654cb9c3101ddd4041",
    "PCAFETER": "99927d148128254141a9417d051510bb",
    "PRESTO": "b98d2e6854eeebb397f29a8ad7457092",
    "PSTATION": "d7448009f6c2aeb6ba570375df1750a3",
    "SPSQUARE": "205d0e7b8fe74504a2f8d252fc414b9e",
    "STRAFFIC": "2efa87262f272bbf9ba578088e81939c",
    "TBUS": "706b11b0d8504f9f3b3f3211e91b3863",
    "TCAR": "4d930012796bd298932245a26189f973",
    "TMETRO": "95daf4df678e13b120e14211e6d89571",
}
ARCHIVES: dict[str, Archive] = {
    name: Archive(
        f"https://www.openslr.org/resources/{resource}/{name}.tar.gz", md5, _LIBRISPEECH, "speech"
    )
    for name, (resource, md5) in _SPEECH_SUMS.items()
} | {
    name: Archive(f"https://zenodo.org/records/1227121/files/{name}_16k.zip", md5, _DEMAND, "noise")
    for name, md5 in _NOISE_SUMS.items()
}


def download(archives: Sequence[Archive], folder: Path) -> None:
    """Fetch, check and unpack archives; what an earlier call finished is left alone.

    Args:
        archives: what to fetch.
        folder: gets ``speech`` and ``noise``; archives are removed once they are unpacked.

    Raises:
        DownloadError: the connection broke (the next call goes on from there), the sum is wrong
            (nothing is kept), an entry would lie outside (nothing is unpacked), the disk is full,
            or the server has no such file.
        MissingExtraError: pooch is not installed.
    """
    with extra("download"):
        import pooch  # noqa: F401
        import requests

    print(*dict.fromkeys(archive.licence for archive in archives), sep="\n")
    for archive in archives:
        done = folder / ".complete" / archive.file_name
        if done.is_file():
            print(f"{archive.file_name}: already there")
            continue
        try:
            path = fetch(archive, folder)
            unpack(path, folder / archive.part)
        except requests.exceptions.RequestException as error:
            raise DownloadError(
                f"{archive.file_name}: the connection to {archive.url} failed ({error}); the same "
                "command goes on where it stopped"
            ) from error
        except ValueError as error:
            raise DownloadError(
                f"{archive.file_name}: the sum of {archive.url} is wrong ({error}); nothing was "
                "kept, the same command starts again"
            ) from error
        except tarfile.FilterError as error:
            raise DownloadError(
                f"{archive.file_name}: an entry would lie outside of {folder} ({error}); nothing "
                "was unpacked"
            ) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DownloadError(
                f"{archive.file_name}: the disk of {folder} is full ({error.strerror}): make room, "
                "and the same command goes on"
            ) from error
        done.parent.mkdir(exist_ok=True)
        done.touch()
        path.unlink()


def fetch(archive: Archive, folder: Path) -> Path:
    """Fetch one archive whole, with its sum checked, and return its path.

    Args:
        archive: what to fetch.
        folder: where it goes.

    Raises:
        requests.exceptions.RequestException: the connection broke, or there is no such file.
        ValueError: the sum is wrong.
        OSError: the disk is full.
    """
    import pooch

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.file_name}.part"

    def resume(url: str, output_file: str, _: object) -> None:
        _transfer(url, part)
        os.replace(part, output_file)

    known = f"md5:{archive.md5}"
    return Path(pooch.retrieve(archive.url, known, archive.file_name, folder, downloader=resume))


def _transfer(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks; pooch's own downloader would start at the beginning."""
    import requests

    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is lacking; the sum says whether it is the right file
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            there = 0  # a server that cannot go on in the middle starts at the beginning
        total = there + int(response.headers.get("Content-Length", 0))
        # Refuse before the first byte what cannot end well.
        if _ROOM * total - there > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, f"{_ROOM * total - there:.0f} bytes are needed")
        bar = tqdm(total=total or None, initial=there, desc=part.stem, unit="B", unit_scale=True)
        with bar, open(part, "ab" if there else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if part.stat().st_size < total:
        raise requests.exceptions.ConnectionError(f"cut at {part.stat().st_size} of {total} bytes")


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into a folder; a file appears whole or not at all.

    Args:
        path: ``.tar.gz`` or ``.zip``.
        folder: where its tree goes; no entry can lie outside of it.

    Raises:
        OSError: the disk is full.
        tarfile.FilterError: an entry of a tar file would lie outside; those of a zip file are left
            out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking", dir=folder) as temporary:
        if path.suffix == ".zip":
            shutil.unpack_archive(path, temporary)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(temporary, filter="data")
        shutil.copytree(temporary, folder, copy_function=os.replace, dirs_exist_ok=True)


def _define_flags() -> None:
    flags.DEFINE_list("names", None, f"What to fetch: {', '.join(ARCHIVES)}.", required=True)
    flags.DEFINE_string("output", None, "Folder that gets speech and noise.", required=True)
    flags.DEFINE_string("mirror", None, "Take every archive from this address instead.")


def main() -> None:
    """Flags, library."""
    values = flags.FLAGS
    unknown = [name for name in values.names if name not in ARCHIVES]
    if unknown:
        raise ValueError(f"--names: no {unknown[0]!r}; choose from {', '.join(ARCHIVES)}")
    chosen = [ARCHIVES[name] for name in values.names]
    if values.mirror is not None:
        mirror = values.mirror.rstrip("/")
        chosen = [dataclasses.replace(a, url=f"{mirror}/{a.file_name}") for a in chosen]
    download(chosen, Path(values.output))


if __name__ == "__main__":
    launch.run(_define_flags, main)

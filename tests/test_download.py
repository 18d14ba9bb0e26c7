"""Downloads from a server on this machine, with what goes wrong on real networks and disks."""

import errno
import hashlib
import http.server
import io
import shutil
import threading
import zipfile
from collections import namedtuple
from unittest import mock

import launching
import numpy as np
import pytest

from experiments import download
from experiments.download import Archive, DownloadError, tarfile

pytest.importorskip("pooch")

NOISE = np.random.default_rng(0).bytes(300_000)
SPEECH = {"LibriSpeech/SPEAKERS.TXT": b"; none", "LibriSpeech/dev/1/2/1-2-0003.flac": NOISE}
DEMAND = {"NPARK/ch01.wav": NOISE[:1000], "NPARK/ch02.wav": NOISE[1000:2000]}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``, from the middle too, and stops after ``server.cut`` bytes."""

    def do_GET(self):
        body = self.server.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        start = 0
        if self.headers["Range"] and self.server.can_resume:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.server.starts.append(start)
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = len(body) if self.server.cut is None else start + self.server.cut
        self.wfile.write(body[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on 127.0.0.1."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.files, found.cut, found.starts, found.can_resume = {}, None, [], True
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def speech(server):
    """An archive of speech that the server has."""
    return offer(server, "dev.tar.gz", tar_bytes(SPEECH))


def tar_bytes(tree):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in tree.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(tree):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def offer(server, name, body, part="speech"):
    """The archive of a body that the server has."""
    server.files[name] = body
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return Archive(url, hashlib.md5(body).hexdigest(), "CC0", part)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".complete" not in path.parts
    }


def under(part, tree):
    return {f"{part}/{name}": content for name, content in tree.items()}


def test_archives_are_fetched_checked_and_unpacked(server, speech, tmp_path, capsys):
    archives = [speech, offer(server, "NPARK_16k.zip", zip_bytes(DEMAND), "noise")]
    for _ in range(2):
        download.download(archives, tmp_path)
        assert files(tmp_path) == under("speech", SPEECH) | under("noise", DEMAND)
        assert server.starts == [0, 0]
    said = capsys.readouterr().out
    assert "CC0" in said and said.count("already there") == 2


def test_a_wrong_sum_or_a_missing_file_leaves_nothing(server, speech, tmp_path):
    server.files["dev.tar.gz"] = tar_bytes(SPEECH | {"LibriSpeech/more": b"x"})
    with pytest.raises(DownloadError, match=r"dev.tar.gz: the sum of .* is wrong"):
        download.download([speech], tmp_path)
    server.files.clear()
    with pytest.raises(DownloadError, match="404"):
        download.download([speech], tmp_path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("can_resume", [True, False])
def test_a_cut_transfer_goes_on(server, speech, tmp_path, can_resume):
    body = server.files["dev.tar.gz"]
    server.cut, server.can_resume = 100_000, can_resume
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        download.download([speech], tmp_path)
    kept = len(files(tmp_path)["dev.tar.gz.part"])
    assert 80_000 < kept <= 100_000
    assert files(tmp_path) == {"dev.tar.gz.part": body[:kept]}
    server.cut = None
    download.download([speech], tmp_path)
    assert server.starts == [0, kept if can_resume else 0]
    assert files(tmp_path) == under("speech", SPEECH)
    other = tmp_path / "other"  # a part that is whole is not fetched again
    other.mkdir()
    (other / "dev.tar.gz.part").write_bytes(body)
    download.download([speech], other)
    assert files(other) == under("speech", SPEECH)


def test_a_full_disk_is_said_before_the_first_byte_and_while_unpacking(
    server, speech, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DownloadError, match=r"disk of .* is full .*make room"):
            download.download([speech], tmp_path)
    assert files(tmp_path) == {}
    full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", full)
        with pytest.raises(DownloadError, match="No space left"):
            download.download([speech], tmp_path)
    assert set(files(tmp_path)) == {"dev.tar.gz"}
    asked = len(server.starts)
    download.download([speech], tmp_path)
    assert len(server.starts) == asked and len(files(tmp_path)) == 2


def test_entries_cannot_leave_the_folder(tmp_path):
    entries = {"../outside.wav": b"x", "inside.wav": b"y"}
    for name, make in (("bad.tar.gz", tar_bytes), ("bad.zip", zip_bytes)):
        (tmp_path / name).write_bytes(make(entries))
    with pytest.raises(tarfile.FilterError, match="outside"):
        download.unpack(tmp_path / "bad.tar.gz", tmp_path / "in")
    assert files(tmp_path / "in") == {}
    download.unpack(tmp_path / "bad.zip", tmp_path / "in")
    assert files(tmp_path / "in") == {"inside.wav": b"y"}
    assert not (tmp_path / "outside.wav").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--names=TIMIT"], "no 'TIMIT'; choose from"),
        (["--names=DKITCHEN", "--mirror=http://127.0.0.1:9"], "DKITCHEN_16k.zip: the connection"),
    ],
)
def test_the_command_says_what_it_does_not_find(tmp_path, options, message):
    assert message in launching.run("download", f"--output={tmp_path}/corpora", *options)

"""One way to write: whole or not at all, whatever call fails, and nothing of it left behind."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from write_failures import AUDIO

from blsh_jax import files

_HERE = Path(__file__).parent
_KINDS = [f"x.{suffix}" for suffix in AUDIO] + [
    *("model.npz", "checkpoint.npz", "record.json", "figure.png", "n" * 255, "C")
]
_STAYS = """
import os, sys
from blsh_jax import files
with files.replacing(sys.argv[1], lambda file: True) as file:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """What writes left when each of their system calls failed; see ``write_failures``."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler (cc, gcc or clang), or no Linux, to make system calls fail on")
    folder = tmp_path_factory.mktemp("failing")
    library = folder / "failing_calls.so"
    source = _HERE / "failing_calls.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    (folder / "written").mkdir()
    done = subprocess.run(
        [sys.executable, _HERE / "write_failures.py", folder / "written"],
        env=os.environ | {"LD_PRELOAD": str(library)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_failing_call_is_reported_and_what_was_there_stays(swept, kind):
    calls, wrong = swept[kind]
    assert calls >= 8  # open, write, fsync, close, rename, and the folder's fsync and close, unlock
    assert not wrong


@pytest.fixture
def leave(tmp_path):
    """Starts a process that is writing a file; returns it, and its temporary file."""
    running = []

    def start():
        known = set(tmp_path.iterdir())
        process = subprocess.Popen(
            [sys.executable, "-c", _STAYS, str(tmp_path / "theirs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdout.readline() == b"open\n"
        (temporary,) = set(tmp_path.iterdir()) - known
        return process, temporary

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_the_next_write_removes_what_killed_processes_left_and_nothing_else(tmp_path, leave):
    killed, left = leave()
    killed.kill()
    killed.communicate()
    living, used = leave()
    assert not left.exists() and used.exists()
    (tmp_path / "kept").write_text("kept")
    (tmp_path / ".blsh-link.tmp").symlink_to("kept")
    (tmp_path / ".blsh-folder.tmp").mkdir()
    (tmp_path / ".blsh-other").touch()
    before = set(tmp_path.iterdir())
    files.write(tmp_path / "ours", b"x")
    assert set(tmp_path.iterdir()) == before | {tmp_path / "ours"}
    living.communicate()
    assert living.returncode == 0
    assert (tmp_path / "theirs").exists() and not used.exists()


def test_several_files_are_written_into_a_folder_at_once(tmp_path):
    with files.replacing(tmp_path / "a", lambda file: True) as first:
        first.write(b"first")
        with files.replacing(tmp_path / "a", lambda file: True) as second:
            second.write(b"second")
        assert [path.read_bytes() for path in tmp_path.glob("a")] == [b"second"]
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


@pytest.mark.parametrize("locks", [True, False])
def test_a_file_appears_with_the_rights_that_new_files_have(tmp_path, monkeypatch, locks):
    if not locks:  # as on Windows
        monkeypatch.setattr(files, "fcntl", None)
        (tmp_path / ".blsh-left.tmp").touch()
    name = os.fsdecode(b"caf\xe9")
    files.write(tmp_path / name, b"new")
    (tmp_path / "plain").touch()
    assert sorted(os.listdir(tmp_path)) == sorted([name, "plain"])
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def _refuse(file):
    raise ValueError(f"{len(file.read())} bytes are damaged")


@pytest.mark.parametrize(
    ("verify", "message"),
    [(lambda file: file.read() == b"other", "read back"), (_refuse, "3 bytes are damaged")],
)
def test_what_does_not_read_back_is_not_written(tmp_path, verify, message):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=message) as refused, files.replacing(path, verify) as file:
        file.write(b"new")
    assert refused.value.filename == str(path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_stops_a_write_passes_and_nothing_is_left(tmp_path, error):
    with pytest.raises(error), files.replacing(tmp_path / "x", lambda file: True) as file:
        file.write(b"new")
        raise error
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_is_no_whole_one(tmp_path):
    files.write_arrays(tmp_path / "x.npz", {"a": np.arange(1000)})
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[500] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with open(tmp_path / "x.npz", "rb") as file:
        assert not files._is_whole_archive(file)


def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").write_bytes(b"old")
    for name, target in {"a": "far/old", "b": "far/new", "c": "a"}.items():
        (tmp_path / name).symlink_to(target)
        files.write(tmp_path / name, name.encode())
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == name.encode()
    assert (tmp_path / "far" / "old").read_bytes() == b"c"
    assert sorted(os.listdir(tmp_path / "far")) == ["new", "old"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="link to itself"):
        files.write(tmp_path / "loop", b"x")


def test_folders_pipes_and_sockets_are_not_written_over(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket"))
        for name, message in {"folder": "a folder", "pipe": "a pipe", "socket": "a pipe"}.items():
            with pytest.raises(OSError, match=message):
                files.write(tmp_path / name, b"x")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        files.write(tmp_path / "file" / "x", b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "pipe", "socket"]

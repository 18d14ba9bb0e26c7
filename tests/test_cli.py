"""The blsh command, in its own process where that matters."""

import dataclasses
import io
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import soundfile
from small_models import random_model

from blsh_jax import _version, cli, models, training
from blsh_jax.corpora import audio
from blsh_jax.denoising import folders
from blsh_jax.export import costs

RATE = 16000


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A small model, as a file."""
    path = tmp_path_factory.mktemp("small") / "model.npz"
    provenance = {"speech": {"layout": "made up", "licence": "none"}}
    models.save(dataclasses.replace(random_model(), provenance=provenance), path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Good files of several kinds, and bad ones, in a tree."""
    rng = np.random.default_rng(0)
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    noise = 0.1 * rng.standard_normal((9000, 2))
    soundfile.write(source / "a.flac", noise, 44100, subtype="PCM_24")
    soundfile.write(source / "sub" / "b.wav", noise[:, 0], 8000, subtype="PCM_16")
    soundfile.write(source / "silent.wav", np.zeros((480, 3)), 48000, subtype="FLOAT")
    (source / "text.wav").write_text("not audio")
    (source / os.fsdecode(b"caf\xe9.wav")).write_text("not audio either")
    (source / "empty.wav").write_bytes(b"")
    whole = (source / "a.flac").read_bytes()
    (source / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(source / "nan.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    return source


def command(*arguments):
    return [sys.executable, "-m", "blsh_jax.cli", *map(str, arguments)]


def blsh(*arguments, **options):
    """The blsh command, ended."""
    return subprocess.run(command(*arguments), capture_output=True, check=False, **options)


@pytest.fixture
def here(capsys, monkeypatch):
    """The blsh command in this process: exit status, standard output and error."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(costs, "use_one_core", lambda: True)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return run


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_keeps_its_tree_and_bad_files_are_named(folder, tmp_path, used, here):
    out = tmp_path / "out"
    done = blsh("denoise", folder, out, f"--model={used}", "--device=cpu", text=True)
    assert done.returncode == 1
    written = files_of(out)
    assert written == {"a.flac", "sub/b.wav", "silent.wav"}
    for name in written:
        before, after = soundfile.info(folder / name), soundfile.info(out / name)
        for attribute in ("samplerate", "channels", "frames", "subtype"):
            assert getattr(before, attribute) == getattr(after, attribute)
    for bad in ("text.wav", "empty.wav", "cut.flac", "nan.wav", "caf"):
        assert bad in done.stderr
    assert "3 denoised, 5 failed" in done.stdout
    stamps = {name: (out / name).stat().st_mtime_ns for name in written}
    (folder / os.fsdecode(b"caf\xe9.wav")).unlink()
    status, said, _ = here("denoise", folder, out, f"--model={used}")
    assert status == 1 and "3 kept (already there; give --overwrite), 4 failed" in said
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in written}


def test_settings_reach_the_files_and_overwrite_writes_over(tmp_path, used, here):
    noisy = (0.1 * np.random.default_rng(0).standard_normal(9000)).astype(np.float32)
    audio.write(tmp_path / "x.wav", noisy, RATE)
    audio.write(tmp_path / "y.wav", np.zeros(5, np.float32), RATE)
    files = tmp_path / "x.wav", tmp_path / "y.wav"
    status, said, _ = here("denoise", *files, f"--model={used}", "--overwrite", "--dry_wet=0")
    assert status == 0 and "1 denoised" in said and "real time" in said
    assert (tmp_path / "x.wav").read_bytes() == (tmp_path / "y.wav").read_bytes()


@pytest.fixture
def small(tmp_path, used):
    """A folder with one short file, and a model."""
    audio.write(tmp_path / "x.flac", np.full(900, 0.1, np.float32), 8000)
    return f"--model={used}"


def test_named_pipes_and_descriptors_are_streams(tmp_path, small):
    os.mkfifo(tmp_path / "pipe.flac")
    done = subprocess.run(
        ["bash", "-c", 'cat pipe.flac >out.flac & "$@" pipe.flac && wait', "-"]
        + command("denoise", "x.flac", small),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "out.flac").frames == 900
    done = subprocess.run(
        ["bash", "-c", '"$@" <(cat x.flac) /dev/stdout >out.wav', "-"] + command("denoise", small),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and b"1 denoised" in done.stderr
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.format, info.frames) == ("WAV", 900)


def test_what_is_no_stream_of_audio_is_refused_before_any_work(tmp_path, small, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, stream, message in (
        (("-", "y.wav"), "stdin", "standard input is closed"),
        (("x.flac", "-"), "stdout", "standard output is closed"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, stream, None)
            status, _, error = here("denoise", *arguments, small)
        assert status == 2 and message in error
    terminal = type("Terminal", (), {"isatty": lambda self: True})()
    monkeypatch.setattr(sys, "stdin", terminal)
    status, _, error = here("denoise", "-", "y.wav", small)
    assert status == 2 and "standard input is a terminal" in error
    status, _, error = here("denoise", "x.flac", "x.flac", "-", small)
    assert status == 2 and "2 inputs, standard output takes one file" in error
    assert files_of(tmp_path) == {"x.flac"}


def test_options_are_taken_with_hyphens_and_what_was_done_as_json(tmp_path, small, here):
    files = tmp_path / "x.flac", tmp_path / "no.wav", f"{tmp_path}/out/"
    status, said, _ = here("denoise", *files, small, "--json", "--dry-wet", "0.5")
    assert status == 1
    record = json.loads(said)
    assert record["unlisted"] == [f"{tmp_path / 'no.wav'}: no such file or folder"]
    assert record["files"] == [
        {
            "source": str(tmp_path / "x.flac"),
            "target": str(tmp_path / "out" / "x.flac"),
            "status": "denoised",
            "seconds": 0.1125,
            "cut_short": False,
            "messages": [],
        }
    ]
    status, said, error = here("denoise", files[0], tmp_path / "q.flac", small, "--quiet")
    assert (status, said, error) == (0, "", "")
    status, _, error = here(
        "denoise", files[0], tmp_path / "q.flac", small, "--max-attenuation-db=-1"
    )
    assert status == 2 and "max_attenuation_db is -1" in error


def test_a_page_to_listen_to_lies_beside_the_outputs(tmp_path, small, here, monkeypatch):
    out = f"{tmp_path}/out/"
    assert here("denoise", tmp_path / "x.flac", out, small, "--report")[0] == 0
    assert files_of(tmp_path / "out") == {"x.flac", "out.report.html"}
    page = (tmp_path / "out" / "out.report.html").read_text()
    assert page.count("<audio") == 2 and "x.flac" in page
    assert here("denoise", tmp_path / "x.flac", tmp_path / "y.wav", small, "--report")[0] == 0
    assert (tmp_path / "y.report.html").exists()
    status, _, error = here("denoise", tmp_path / "x.flac", "/dev/null", small, "--report")
    assert status == 2 and "--report writes a page beside the output" in error
    monkeypatch.setitem(sys.modules, "blsh_jax.evaluation.result_page", None)
    status, _, error = here("denoise", tmp_path / "x.flac", tmp_path / "z.wav", small, "--report")
    assert status == 2 and "pip install 'blsh_jax[report]'" in error
    assert not (tmp_path / "z.wav").exists()


def test_standard_input_and_output(tmp_path, used):
    noisy = 0.1 * np.random.default_rng(0).standard_normal((9000, 2))
    soundfile.write(tmp_path / "x.flac", noisy, 22050, subtype="PCM_24")
    sent = (tmp_path / "x.flac").read_bytes()
    done = blsh("denoise", "-", "-", f"--model={used}", input=sent)
    assert done.returncode == 0, done.stderr
    info = soundfile.info(io.BytesIO(done.stdout))
    assert (info.format, info.subtype, info.frames) == ("WAV", "PCM_24", 9000)
    assert (info.samplerate, info.channels) == (22050, 2)
    failed = blsh("denoise", "-", "-", f"--model={used}", input=b"not audio")
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert b"  standard input: not readable" in failed.stderr
    done = blsh("denoise", "--preview", "-", "-", f"--model={used}", input=sent)
    assert soundfile.info(io.BytesIO(done.stdout)).frames == 9000, done.stderr
    failed = blsh("denoise", "-", tmp_path, f"--model={used}", input=sent)
    assert failed.returncode == 2 and b"has no name: give a file" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("denoise", "no.wav", "z.wav"), "no.wav: no such file"),
        (("denoise", "x.wav"), "required: OUTPUT"),
        (("denoise", "x.wav", "x.wav"), "also an input"),
        (("denoise", ".", "-"), "standard output takes one file"),
        (("denoise", "x.wav", "z.wav", "--model=no.npz"), "no.npz"),
        (("denoise", "x.wav", "z.wav", "--dry_wet=2"), "dry_wet is 2"),
        (("denoise", "x.wav", "z.wav", "--strength=9"), "strength is 9"),
        (("denoise", "x.wav", "z.wav", "--strength=soft"), "'soft': give keep-speech, balanced"),
        (("denoise", "x.wav", "z.wav", "--device=abacus"), "abacus"),
        (("adapt", "x.wav", "--speech", "x.wav", "--output=m"), "ends in .npz"),
        (("adapt", "x.wav", "--speech", "no", "--output=m.npz"), "no: no such file or folder"),
        (("adapt", "x.wav", "--speech", "x.wav", "--output=m.npz"), "too short (0.019 s"),
        (("adapt", "x.wav", "--output=m.npz"), "required: --speech"),
        (("clean",), "invalid choice"),
        ((), "required: COMMAND"),
    ],
)
def test_usage_errors_say_what_to_do(tmp_path, used, arguments, message, monkeypatch, here):
    soundfile.write(tmp_path / "x.wav", 0.1 * np.ones(300), RATE)
    if arguments[:1] == ("denoise",) and "--model=no.npz" not in arguments:
        arguments = (*arguments, f"--model={used}")
    monkeypatch.chdir(tmp_path)
    status, _, error = here(*arguments)
    assert status == 2 and message in error
    assert files_of(tmp_path) == {"x.wav"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_half_way_leaves_nothing_under_the_name_and_is_done_again(tmp_path, used, here, sent):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    noisy = 0.1 * np.random.default_rng(0).standard_normal(60 * RATE)
    soundfile.write(source / "x.wav", np.tile(noisy, 10), RATE)
    arguments = command("denoise", source, out, f"--model={used}")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        while not (out.is_dir() and any(path.stat().st_size > 1e6 for path in out.iterdir())):
            assert run.poll() is None
            time.sleep(0.005)
        run.send_signal(sent)
        said, _ = run.communicate()
    left = files_of(out)
    if sent != signal.SIGKILL:  # what was temporary is removed
        assert run.returncode == 128 + sent and not left
        assert said.decode() == "0 denoised, 1 not done\n"
    assert "x.wav" not in left and len(left) <= 1
    soundfile.write(source / "x.wav", noisy[:RATE], RATE)
    status, said, _ = here("denoise", source, out, f"--model={used}")
    assert status == 0 and "1 denoised" in said
    assert soundfile.info(out / "x.wav").frames == RATE
    assert files_of(out) == {"x.wav"}


@pytest.fixture
def handlers():
    """Signals and what they do, to be restored; none is ignored, as it would be under nohup."""
    kept = {number: signal.getsignal(number) for number in cli._ENDING}
    for number in kept:
        signal.signal(number, signal.default_int_handler)
    yield kept
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_folder_run_with_a_summary_and_a_second_one_at_once(
    tmp_path, used, handlers, capsys, monkeypatch, sent
):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        audio.write(source / name, np.full(900, 0.1, np.float32), RATE)
    denoise_file = folders.denoise_file

    def stopped(path, *arguments, **options):
        if path.name == "b.wav":
            os.kill(os.getpid(), sent)
        return denoise_file(path, *arguments, **options)

    monkeypatch.setattr(folders, "denoise_file", stopped)
    with pytest.raises(SystemExit) as ended:
        cli.main(["denoise", str(source), str(tmp_path / "out"), f"--model={used}"])
    assert ended.value.code == 128 + sent
    said, error = capsys.readouterr()
    assert said.startswith("1 denoised, 2 not done: ") and not error
    assert files_of(tmp_path / "out") == {"a.wav"}
    assert {signal.getsignal(number) for number in handlers} == {signal.SIG_DFL}


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(128 + signal.SIGTERM)])
def test_a_signal_that_met_a_callback_is_raised_again(handlers, raised):
    """Python drops exceptions in callbacks of the garbage collection."""
    ignored = types.SimpleNamespace(exc_type=type(raised), exc_value=raised)
    with pytest.raises(type(raised)):
        cli._raise_again(ignored)
        time.sleep(5)


def test_an_interrupt_while_the_model_is_compiled_ends_in_order(tmp_path):
    audio.write(tmp_path / "x.wav", np.full(400 * RATE, 0.1, np.float32), RATE)
    with subprocess.Popen(
        command("denoise", tmp_path / "x.wav", tmp_path / "out" / "x.wav"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        while not (tmp_path / "out").is_dir():
            assert run.poll() is None
            time.sleep(0.005)
        time.sleep(0.8)
        run.send_signal(signal.SIGINT)
        said, error = run.communicate()
    assert (run.returncode, said, error) == (130, b"0 denoised, 1 not done\n", b"")
    assert not files_of(tmp_path / "out")


def test_signals_that_were_ignored_stay_so(handlers, here, monkeypatch):
    monkeypatch.undo()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    assert here("denoise", "no.wav", "out.wav")[0] == 2
    with pytest.raises(KeyboardInterrupt):
        cli._end(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_no_standard_output_is_needed(tmp_path, used, here, monkeypatch):
    audio.write(tmp_path / "x.wav", np.full(900, 0.1, np.float32), RATE)
    monkeypatch.setattr(sys, "stdout", None)
    assert here("denoise", tmp_path / "x.wav", tmp_path / "y.wav", f"--model={used}")[0] == 0
    assert soundfile.info(tmp_path / "y.wav").frames == 900


def test_a_closed_standard_output_ends_quietly_after_the_work(tmp_path, used):
    audio.write(tmp_path / "x.wav", np.full(900, 0.1, np.float32), RATE)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("denoise", tmp_path / "x.wav", tmp_path / "y.wav", f"--model={used}"),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr.startswith(b"1 denoised: ") and done.stderr.count(b"\n") == 1
    assert soundfile.info(tmp_path / "y.wav").frames == 900


@pytest.mark.parametrize("start", [["-m", "blsh_jax"], ["blsh"]])
def test_an_interrupt_while_the_command_is_loaded_ends_it_quietly(tmp_path, start):
    (tmp_path / "blsh").write_text("from blsh_jax.cli import main\nmain()\n")
    with subprocess.Popen(
        [sys.executable, *start, "denoise", "-", "-"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        maps = pathlib.Path("/proc", str(run.pid), "maps")
        while "jaxlib" not in maps.read_text():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, error = run.communicate()
    assert run.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert not error


def test_inputs_are_never_written_over(tmp_path):
    (tmp_path / "in" / "in").mkdir(parents=True)
    for name in ("in/x.wav", "in/in/x.wav"):
        soundfile.write(tmp_path / name, np.zeros(10), RATE)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for target in ("in", "link", "", "in/out"):
        with pytest.raises(ValueError, match=r"also an input|lies inside"):
            folders.find_pairs([tmp_path / "in"], tmp_path / target)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no audio files"):
        folders.find_pairs([tmp_path / "none"], tmp_path / "out")
    assert folders.find_pairs([tmp_path / "in" / "x.wav"], tmp_path / "none").pairs == [
        (tmp_path / "in" / "x.wav", tmp_path / "none" / "x.wav")
    ]


def test_info_states_bytes_operations_latency_and_speed(tmp_path, used, here, monkeypatch):
    facts = json.loads(here("info", f"--model={used}", "--json")[1])
    assert facts["bytes"] == {
        "projections": 40 * 513 * 4 + 40 * 4,
        "codes": 100 * 2 * 4,
        "masks": 100 * 17 * 4,
    }
    assert (facts["latency_samples"], facts["latency_ms"], facts["hop_ms"]) == (768, 48.0, 16.0)
    assert facts["operations_per_frame"]["projection"] == 2 * 40 * 513
    assert facts["operations_per_frame"]["search"] == 2 * 100 * 2
    assert 0 < facts["real_time_factor_live"] < 1
    text = costs.text(facts, one_core=True)
    for part in ("40 bits", "layout made up, licence none", "48 ms (768 samples)", "real-time"):
        assert part in text
    monkeypatch.setattr(costs, "real_time_factor", lambda *_: 0.1)
    facts = json.loads(here("info", "--model=small", "--json")[1])  # known by its name
    assert facts["bits"] == models.load_pretrained("small").hasher.num_bits
    status, _, error = here("info", f"--model={tmp_path}/small")
    assert status == 2 and "no model at" in error


def test_the_package_runs_as_the_command_and_every_command_explains_itself(
    here, monkeypatch, capsys
):
    for name in ("denoise", "live", "adapt", "info", "export", "demo"):
        status, said, _ = here(name, "--help")
        assert status == 0 and f"blsh {name}" in said and len(said) > 200
    monkeypatch.setattr(sys, "argv", ["blsh", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("blsh_jax", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"blsh {_version.__version__}"


def test_a_model_is_adapted_to_files_and_folders(tmp_path, used, here, monkeypatch):
    rng, given = np.random.default_rng(0), []
    for name in ("noise/a.wav", "noise/sub/b.flac", "hum.wav", "voice.wav"):
        audio.write(tmp_path / name, 0.1 * rng.standard_normal(8000).astype(np.float32), 8000)
    monkeypatch.setattr(training, "adapt", lambda *args, **_: given.append(args) or args[0])
    status, said, _ = here(
        *("adapt", tmp_path / "noise", tmp_path / "hum.wav", "--speech", tmp_path / "voice.wav"),
        *("--output", tmp_path / "new" / "mine.npz", f"--model={used}"),
    )
    assert status == 0 and "0.1 minutes of noise" in said
    ((model, noise, speech),) = given
    assert [len(signal) for signal in (*noise, *speech)] == [RATE] * 4 and len(noise) == 3
    saved = models.load(tmp_path / "new" / "mine.npz")
    assert saved.config == model.config


def test_export_writes_a_smaller_model(tmp_path, used, here):
    arguments = f"--model={used}", "--format=c", "--num_bits=9", "--num_frames=20"
    status, said, _ = here("export", tmp_path, *arguments)
    assert status == 0
    assert "#define BLSH_FRAMES 20\n" in (tmp_path / "blsh_sizes.h").read_text()
    for path in tmp_path.iterdir():
        assert f"{path} ({path.stat().st_size:,} bytes)" in said


def test_times_are_taken_on_one_core(monkeypatch):
    chosen = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: chosen.append(set(cores)))
    assert costs.use_one_core()
    assert chosen and all(cores == {min(os.sched_getaffinity(0))} for cores in chosen)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep caches elsewhere")
def test_what_is_compiled_is_kept_in_the_users_cache_if_that_can_be_written(used, tmp_path):
    source, homes = tmp_path / "x.wav", (tmp_path / "cache", tmp_path / "file")
    soundfile.write(source, 0.1 * np.random.default_rng(0).standard_normal(3000), RATE)
    homes[1].write_text("no folder")
    outputs = []
    for home in homes:
        known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
        environment = known | {"XDG_CACHE_HOME": str(home)}
        target = tmp_path / f"{home.name}.wav"
        done = blsh("denoise", source, target, f"--model={used}", env=environment)
        assert done.returncode == 0 and b"Traceback" not in done.stderr
        outputs.append(target.read_bytes())
    assert outputs[0] == outputs[1] and homes[1].read_text() == "no folder"
    known["XDG_CACHE_HOME"] = str(homes[0])
    again = ("denoise", "--overwrite", source, target, f"--model={used}")
    for command, kept in ((again, "*.program"), (("info", f"--model={used}"), "jit_step-*-cache")):
        assert blsh(*command, env=known).returncode == 0
        whole = {path: path.read_bytes() for path in homes[0].glob(f"blsh_jax/*/{kept}")}
        for path, content in whole.items():
            path.write_bytes(content[: len(content) // 2])  # as a full disk leaves it
        done = blsh(*command, env=known)
        assert whole and done.returncode == 0 and not done.stderr
        for path, content in whole.items():
            assert len(path.read_bytes()) > 0.9 * len(content)  # written anew
    assert target.read_bytes() == outputs[1]
    assert len([*homes[0].glob("blsh_jax/*/*.program")]) == 3  # which info has in common
    assert not [*homes[0].glob("blsh_jax/*/jit__at_once*")]

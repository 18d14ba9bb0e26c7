"""Model files and checkpoints that are damaged or hostile: one error, fast, with little memory."""

import dataclasses
import json
import os
import re
import struct
import tracemalloc
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import ModelError, models
from experiments import damaged_models
from experiments.damaged_models import array_bytes, array_of

MODEL, CHECKPOINT = damaged_models.whole_model(), damaged_models.whole_checkpoint()
KINDS = {
    "model": (MODEL, damaged_models.read_model, damaged_models.damaged_model),
    "checkpoint": (CHECKPOINT, damaged_models.read_checkpoint, damaged_models.damaged_checkpoint),
}
HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"


def rewritten(whole, changes, method=zipfile.ZIP_DEFLATED):
    """A file with other members; None leaves one out."""
    kept = damaged_models.members(whole) | changes
    return damaged_models.archive(((k, v) for k, v in kept.items() if v is not None), method)


def with_array(whole, name, change):
    """A file with another array under a name."""
    array = array_of(damaged_models.members(whole)[f"{name}.npy"])
    return rewritten(whole, {f"{name}.npy": array_bytes(change(array))})


def with_header(whole, change):
    """A file whose header is another: ``change`` takes the object and gives an object or text."""
    header = json.loads(str(array_of(damaged_models.members(whole)["header.npy"])))
    changed = change(header)
    text = changed if isinstance(changed, str) else json.dumps(changed)
    return rewritten(whole, {"header.npy": array_bytes(np.array(text))})


def with_setting(path, value):
    """A model file with another setting, such as ``separation.stft.hop_length``."""

    def change(header):
        inner = header["config"]
        *sections, name = path.split(".")
        for section in sections:
            inner = inner[section]
        inner[name] = value
        return header

    return with_header(MODEL, change)


def patched(whole, member, offset, content):
    """A file with other bytes in the directory's entry of a member."""
    place = whole.rindex(member.encode()) - 46 + offset  # where zip puts it: APPNOTE 4.3.12
    return whole[:place] + content + whole[place + len(content) :]


def flipped(whole, member):
    """A file with another last bit of a member, and the checksum of the right one."""
    content = damaged_models.members(whole)[member]
    other = content[:-1] + bytes([content[-1] ^ 1])
    return rewritten(whole, {}, zipfile.ZIP_STORED).replace(content, other)


def bomb(num_bytes):
    """A file that unpacks to so many zeros, and says so."""
    head = array_bytes(np.zeros(1, np.float32))[:128]
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_bytes // 4},), }}"
    zeros = bytes(1 << 20)
    parts = (zeros for _ in range(num_bytes >> 20))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = head[:10] + text.ljust(117).encode() + b"\n"
    packed = packer.compress(start) + b"".join(packer.compress(part) for part in parts)
    packed += packer.flush()
    name, size = b"biases.npy", 128 + num_bytes
    sizes = struct.pack("<3L2H", 0, len(packed), size, len(name), 0)
    local = struct.pack("<4s5H", b"PK\3\4", 20, 0, 8, 0, 0) + sizes + name + packed
    entry = struct.pack("<4s6H", b"PK\1\2", 20, 20, 0, 8, 0, 0) + sizes
    entry += struct.pack("<3H2L", 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)
    return local + entry + end


def huge_array(whole):
    """A file whose header declares 10^12 numbers."""
    head = array_bytes(np.zeros(1, np.float32))[:10] + HUGE.ljust(117).encode() + b"\n"
    return rewritten(whole, {"projections.npy": head + bytes(64)})


DAMAGED_MODELS = {
    "an array is missing": (rewritten(MODEL, {"codes.npy": None}), "no codes"),
    "the header is missing": (rewritten(MODEL, {"header.npy": None}), "no header"),
    "one array more": (rewritten(MODEL, {"x.npy": array_bytes(np.ones(2))}), "x is not known"),
    "no array": (rewritten(MODEL, {"x.txt": b"a"}), r"x\.txt is no array"),
    "many members": (rewritten(MODEL, {f"{i}.npy": b"" for i in range(40)}), "53 arrays"),
    "an array is there twice": (
        damaged_models.archive([*damaged_models.members(MODEL).items()] * 2),
        "header is there twice",
    ),
    "another compression": (rewritten(MODEL, {}, zipfile.ZIP_LZMA), "as NumPy does not"),
    "encrypted": (patched(MODEL, "betas.npy", 8, b"\1"), "betas is encrypted"),
    "a comment": (MODEL[:-2] + b"\2\0ab", "its end is damaged"),
    "another size in the directory": (patched(MODEL, "betas.npy", 24, b"\xff"), "betas declares"),
    "a bit of an array is flipped": (flipped(MODEL, "biases.npy"), "biases is damaged .*CRC"),
    "10^12 numbers": (huge_array(MODEL), "projections declares 4,000,000,000,000 bytes"),
    "a bomb": (bomb(96 << 20), "biases makes the file unpack to 100,663,424 bytes"),
    "a bomb that says 3 GB": (
        patched(MODEL, "masks.npy", 24, struct.pack("<L", 3 << 30)),
        "masks makes the file unpack to 3,2",
    ),
    "float64": (with_array(MODEL, "projections", np.float64), "projections has the type <f8"),
    "big-endian": (with_array(MODEL, "betas", lambda a: a.astype(">f4")), "type >f4"),
    "signed": (with_array(MODEL, "codes", np.int32), "codes has the type <i4, expected <u4"),
    "a pickle": (with_array(MODEL, "biases", lambda a: a.astype(object)), "biases .* no|declares"),
    "NaN": (with_array(MODEL, "projections", lambda a: a * np.float32("nan")), "projections holds"),
    "infinity": (with_array(MODEL, "frames", lambda a: a + np.float16("inf")), "frames holds NaN"),
    "fewer bits": (with_array(MODEL, "biases", lambda a: a[1:]), r"biases has shape \(39,\)"),
    "fewer features": (with_array(MODEL, "projections", lambda a: a[:, 1:]), "projections has"),
    "more words": (with_array(MODEL, "codes", lambda a: np.hstack([a, a])), "codes has shape"),
    "fewer masks": (with_array(MODEL, "masks", lambda a: a[1:]), r"masks has shape \(11, 17\)"),
    "other frames": (with_array(MODEL, "frames", lambda a: a[1:]), r"frames has shape \(11, 9\)"),
    "no frames": (with_array(MODEL, "codes", lambda a: a[:0]), "codes declares 0 bytes"),
    "a number": (with_array(MODEL, "codes", lambda a: a[0, 0]), "codes is a single number"),
    "bits beyond L": (
        with_array(MODEL, "codes", lambda a: a | 256),
        "codes has bits beyond the 40",
    ),
    "bits beyond F": (with_array(MODEL, "masks", lambda a: a | 2), "masks has bits beyond the 513"),
    "fewer ferns": (
        with_array(MODEL, "fern_tables", lambda a: a[1:]),
        r"fern_tables has shape \(1, 8\), expected \(2, 8\)",
    ),
    "unsigned tables": (with_array(MODEL, "fern_tables", lambda a: a.astype("<u2")), "type <u2"),
    "questions that no bin answers": (
        with_array(MODEL, "fern_features", lambda a: a + np.uint8(40)),
        "fern_features asks for more than the 40 that there are",
    ),
    "later questions that none answers": (
        with_array(MODEL, "second_fern_features", lambda a: a + np.uint8(80)),
        "second_fern_features asks for more than the 80 that there are",
    ),
    "no thresholds": (rewritten(MODEL, {"fern_thresholds.npy": None}), "no fern_thresholds"),
    "no JSON": (with_header(MODEL, lambda _: "{"), "header cannot be read"),
    "deep JSON": (with_header(MODEL, lambda _: '{"a":' * 100_000), "header cannot be read"),
    "a list": (with_header(MODEL, lambda _: "[1]"), "header is no object"),
    "no text": (
        rewritten(MODEL, {"header.npy": array_bytes(np.ones(9))}),
        "header is not the text",
    ),
    "no Unicode": (
        rewritten(
            MODEL, {"header.npy": array_bytes(np.array("abcd")).replace(b"a\0\0\0", b"\xff" * 4)}
        ),
        "header cannot be read",
    ),
    "NaN in the header": (with_setting("snr_db", float("nan")), "NaN is no number of JSON"),
    "of something else": (with_header(MODEL, lambda h: h | {"format": 3}), "format is 3"),
    "a text as version": (with_header(MODEL, lambda h: h | {"version": "9"}), "version is '9'"),
    "a later version": (with_header(MODEL, lambda h: h | {"version": 10}), "upgrade blsh_jax"),
    "other features": (
        with_header(MODEL, lambda h: h | {"version": 8}),
        "version is 8, whose ferns asked about other features: train it anew",
    ),
    "no provenance": (with_header(MODEL, lambda h: h | {"provenance": 0}), "provenance is missing"),
    "other bins": (with_header(MODEL, lambda h: h | {"num_bins": 512}), "num_bins is 512, but the"),
    "format 6, no settings": (
        with_header(MODEL, lambda h: h | {"version": 6, "config": {"stft": {"learner": []}}}),
        "no setting learner",
    ),
}
BAD_SETTINGS = [
    ("separation.stft.window_length", 2**30, "window_length is 1073741824: give 16384 at most"),
    ("separation.stft.hop_length", 1, r"must be a multiple \(2 to 64\) of hop_length 1"),
    ("separation.stft.hop_length", 0, "hop_length is 0"),
    ("separation.stft.hop_length", 1e300, "hop_length is 1e.300: give a whole number"),
    ("separation.stft.sample_rate", 999, "sample_rate is 999"),
    ("separation.stft.sample_rate", 700_000, "hop_length is 256: give 350 or more"),
    ("separation.stft", 3, "stft is 3: give the settings of StftConfig"),
    ("separation.features", [], "features is "),
    ("separation.features.num_mels", 1_000_000, "num_mels is 1000000: give 1024 at most"),
    ("separation.features.num_mels", 6, r"projections has shape \(40, 9\), expected \(40, 10\)"),
    ("separation.features.levels", "2", "levels is '2': give a whole number"),
    ("separation.features.voicing", True, "voicing is True: give a whole number"),
    ("separation.features.context", 10**6 + 1, "context is 1000001: give 255 at most"),
    ("separation.features.floor_frames", 10**9, "floor_frames"),
    ("separation.features.pre_roll_frames", 10**400, "pre_roll_frames is 1000"),
    ("separation.features.colour", 1, "no setting colour"),
    ("separation.num_neighbors", 13, "num_neighbors is 13: there are 12 frames"),
    ("separation.num_neighbors", None, "num_neighbors is None"),
    ("separation.speech_presence.snr_weight_low", 1e30, "snr_weight_low is 1e.30: give 100"),
    ("separation.speech_presence.prior_log_odds", -1e9, "prior_log_odds"),
    ("ferns.num_ferns", 0, "num_second_ferns needs num_ferns"),
    ("ferns.num_second_ferns", 0, "second_fern_[a-z]* is not known"),
    ("ferns.num_second_ferns", 2, r"second_fern_[a-z]* has shape \(1, [38]\), expected \(2"),
    ("ferns.num_ferns", 3, r"fern_[a-z]* has shape \(2, [38]\), expected \(3, [38]\)"),
    ("ferns.fern_bits", 60, "fern_bits is 60: give 12 at most"),
    ("fit.sigma2", 10**400, "sigma2 is 10.*: give a finite number"),
    ("fit.target", ["rbf"], "target is .*: choose one of rbf, cosine"),
    ("fit.mode", {}, "mode is {}: choose one of"),
    ("held_back", {"a": 1}, "held_back is .*: give a finite number"),
]
DAMAGED_CHECKPOINTS = {
    "an array is missing": (rewritten(CHECKPOINT, {"info_beta.npy": None}), "no info_beta"),
    "10^12 numbers": (huge_array(CHECKPOINT), "projections declares 4,000,000,000,000 bytes"),
    "a bomb": (bomb(96 << 20), "biases makes the file unpack"),
    "float16": (with_array(CHECKPOINT, "betas", np.float16), "betas has the type <f2"),
    "NaN": (with_array(CHECKPOINT, "info_epsilon", lambda a: a * np.nan), "info_epsilon holds NaN"),
    "fewer bits": (with_array(CHECKPOINT, "info_steps", lambda a: a[1:]), "info_steps has shape"),
    "fewer features": (
        with_array(CHECKPOINT, "projections", lambda a: a[:, 1:]),
        r"projections has shape \(3, 8\), expected \(3, 9\)",
    ),
    "more bits than the run learns": (
        with_array(CHECKPOINT, "projections", lambda a: np.vstack([a, a])),
        "projections has 6 bits, more than",
    ),
    "another version": (with_header(CHECKPOINT, lambda h: h | {"version": 2}), "version is 2"),
    "an unknown plan": (with_header(CHECKPOINT, lambda h: h | {"plan": []}), "plan is "),
    "no description": (with_header(CHECKPOINT, lambda h: h | {"description": 1}), "description is"),
    "another run": (
        with_header(CHECKPOINT, lambda h: h | {"description": {"key": "a" * 5000}}),
        "belongs to another run:\n  config.adam_b1: None in the checkpoint, 0.95 now",
    ),
    "a model": (MODEL, "version is 9, and this program reads 1"),
}


def refusal(load, content, folder):
    """The message that a file is refused with, which names it; little memory is taken."""
    path = folder / "bad.npz"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"bad\.npz") as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("case", DAMAGED_MODELS)
def test_a_damaged_model_is_refused_by_its_field(case, tmp_path):
    content, message = DAMAGED_MODELS[case]
    assert re.search(message, refusal(models.load, content, tmp_path))


@pytest.mark.parametrize(
    ("path", "value", "message"), BAD_SETTINGS, ids=[f"{s[0]}-{s[1]!s:.9}" for s in BAD_SETTINGS]
)
def test_a_setting_out_of_range_is_named(path, value, message, tmp_path):
    assert re.search(message, refusal(models.load, with_setting(path, value), tmp_path))


@pytest.mark.parametrize("case", DAMAGED_CHECKPOINTS)
def test_a_damaged_checkpoint_is_refused_by_its_field(case, tmp_path):
    content, message = DAMAGED_CHECKPOINTS[case]
    assert re.search(message, refusal(damaged_models.load_checkpoint, content, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read_and_random_damage_is_refused_or_harmless(kind, tmp_path):
    whole, read, damage = KINDS[kind]
    path = tmp_path / "case.npz"
    for content in (whole, rewritten(whole, {}, zipfile.ZIP_STORED)):
        path.write_bytes(content)
        assert read(path) == "loaded"
    outcomes = []
    for seed in range(100):
        path.write_bytes(damage(np.random.default_rng(seed)))
        outcomes.append(read(path))  # raises on any other error
    assert outcomes.count("refused") > 60


def test_arrays_in_the_order_of_fortran_are_the_same(tmp_path):
    (tmp_path / "c.npz").write_bytes(MODEL)
    changed = with_array(MODEL, "masks", np.asfortranarray)
    assert b"'fortran_order': True" in damaged_models.members(changed)["masks.npy"]
    (tmp_path / "f.npz").write_bytes(changed)
    c, f = (models.load(tmp_path / name).dictionary.masks for name in ("c.npz", "f.npz"))
    np.testing.assert_array_equal(c, f)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(MODEL)
    whole = models.load(path)
    dictionary = whole.dictionary
    bad = {
        "projections holds NaN": dictionary.hasher._replace(
            projections=dictionary.hasher.projections * jnp.nan
        ),
        "biases has shape": dictionary.hasher._replace(biases=dictionary.hasher.biases[1:]),
    }
    for message, hasher in bad.items():
        other = dataclasses.replace(dictionary, hasher=hasher)
        with pytest.raises(ModelError, match=rf"m\.npz: {message}.*: it is not saved"):
            models.save(dataclasses.replace(whole, dictionary=other), path)
    assert path.read_bytes() == MODEL and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for load in (models.load, damaged_models.load_checkpoint):
        with pytest.raises(ModelError, match=r"pipe\.npz cannot be read, as it is no regular file"):
            load(tmp_path / "pipe.npz")

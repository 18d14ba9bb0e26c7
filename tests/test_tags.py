"""What files carry beside their samples: kept within a family, translated between, or named."""

import base64
import struct

import numpy as np
import pytest
from mutagen import File, flac, id3
from small_models import random_model

from blsh_jax.corpora import audio
from blsh_jax.denoising import recordings
from experiments.damaged_audio import whole_audio

RATE = 16_000
NOISE = (0.1 * np.random.default_rng(0).standard_normal((1, 6001))).astype(np.float32)
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(3000)
TEXTS = {"title": ["Tïtle"], "artist": ["One", "Two"], "comment": ["said"], "composer": ["C"]}
CUE = struct.pack("<IIIIIII", 1, 1, 4000, 0x61746164, 0, 0, 4000)
BEXT = b"interview".ljust(602, b"\0")


@pytest.fixture(scope="module")
def used():
    return random_model()


def picture():
    found = flac.Picture()
    found.data, found.type, found.mime, found.desc = PICTURE, 3, "image/png", "front"
    return found


def chunks_of(content, size, place):
    """Names and contents of chunks; the size of the whole stands at a place."""
    assert struct.unpack(size, content[place : place + 4])[0] == len(content) - 8
    found, place = [], 12
    while place + 8 <= len(content):
        (length,) = struct.unpack(size, content[place + 4 : place + 8])
        if length == 2**32 - 1:  # of RF64, which counts elsewhere
            (length,) = struct.unpack(size, content[28:32])
        found.append((content[place : place + 4], content[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    assert place == len(content)
    return found


def tagged(path):
    """A file of that suffix with ``TEXTS`` and a picture, by mutagen."""
    audio.write(path, NOISE, RATE)
    file = File(path)
    if isinstance(file.tags, (id3.ID3, type(None))):
        if file.tags is None:
            file.add_tags()
        file.tags.add(id3.TIT2(encoding=3, text=TEXTS["title"]))
        file.tags.add(id3.TPE1(encoding=3, text=TEXTS["artist"]))
        file.tags.add(id3.TCOM(encoding=3, text=TEXTS["composer"]))
        file.tags.add(id3.COMM(encoding=3, lang="eng", desc="", text=TEXTS["comment"]))
        file.tags.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="front", data=PICTURE))
    else:
        file.tags.update(TEXTS)
        coded = base64.b64encode(picture().write()).decode()
        if path.suffix == ".flac":
            file.add_picture(picture())
        else:
            file.tags["metadata_block_picture"] = [coded]
    file.save()


def carried(path):
    """Texts and pictures of a file, by mutagen."""
    file = File(path)
    if isinstance(file.tags, id3.ID3):
        texts = {"title": "TIT2", "artist": "TPE1", "composer": "TCOM"}
        found = {name: list(file.tags[frame].text) for name, frame in texts.items()}
        found["comment"] = list(file.tags.getall("COMM")[0].text)
        return found, [frame.data for frame in file.tags.getall("APIC")]
    pictures = [p.data for p in getattr(file, "pictures", [])]
    coded = file.tags.get("metadata_block_picture", [])
    return {name: file.tags[name] for name in TEXTS}, pictures + [
        flac.Picture(base64.b64decode(text)).data for text in coded
    ]


SUFFIXES = ("mp3", "flac", "ogg", "opus", "wav", "aiff")


@pytest.mark.parametrize("source", SUFFIXES)
def test_texts_and_pictures_go_from_every_container_to_every_other(used, tmp_path, source):
    tagged(tmp_path / f"x.{source}")
    assert carried(tmp_path / f"x.{source}") == (TEXTS, [PICTURE])
    heard = audio.read(tmp_path / f"x.{source}")[0].shape
    for target in SUFFIXES:
        path, notes = tmp_path / "out" / f"x.{target}", list[str]()
        recordings.denoise_file(tmp_path / f"x.{source}", path, used, note=notes.append)
        assert carried(path) == (TEXTS, [PICTURE]), target
        assert not notes
        assert audio.read(path)[0].shape == heard
    recordings.denoise_file(tmp_path / f"x.{source}", tmp_path / "y.au", used, note=notes.append)
    (said,) = notes
    for word in ("y.au: does not hold", "title", "artist", "comment", "composer", "pictures"):
        assert word in said


def put_chunks(path, kind):
    """A file with texts, cue points, broadcast data and others after its samples."""
    texts = b"INFO" + b"INAM" + struct.pack("<I", 6) + b"title\0"
    chunks = [
        (b"bext", BEXT),
        (b"cue ", CUE),
        (b"LIST", texts),
        (b"iXML", b"<x/>!"),
        (b"id3 ", b"?"),
    ]
    big = kind == "AIFF"
    if big:
        chunks = [(b"MARK", b"\0\0"), (b"NAME", b"title "), (b"APPL", b"some-data")]
    content = whole_audio(kind, "PCM_16", NOISE, RATE)
    for name, data in chunks:
        content += name + struct.pack(">I" if big else "<I", len(data)) + data
        content += bytes(len(data) % 2)
    size = struct.pack(">I" if big else "<I", len(content) - 8)
    place = 4 if kind != "RF64" else 20
    path.write_bytes(content[:place] + size + content[place + 4 :])
    return chunks


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "AIFF"])
def test_chunks_stay_as_they_are_and_are_named_where_they_cannot(used, tmp_path, kind):
    suffix = "aiff" if kind == "AIFF" else "wav"
    chunks, notes = put_chunks(tmp_path / f"x.{suffix}", kind), list[str]()
    recordings.denoise_file(tmp_path / f"x.{suffix}", tmp_path / f"y.{suffix}", used)
    written = (tmp_path / f"y.{suffix}").read_bytes()
    big = kind == "AIFF"
    assert (
        chunks_of(written, ">I" if big else "<I", 20 if kind == "RF64" else 4)[-len(chunks) :]
        == chunks
    )
    assert audio.read(tmp_path / f"y.{suffix}")[0].shape == (NOISE.shape[1],)
    recordings.denoise_file(tmp_path / f"x.{suffix}", tmp_path / "y.flac", used, note=notes.append)
    assert File(tmp_path / "y.flac").tags["title"][0].strip() == "title"
    (said,) = notes
    expected = ("cue points", "APPL") if big else ("cue points", "(bext)", "iXML", "ID3 (damaged)")
    assert all(word in said for word in expected)
    assert "LIST" not in said and "NAME" not in said


def test_marks_of_caf_stay_and_chunks_of_w64_are_neither_samples_nor_lost_unsaid(used, tmp_path):
    mark = b"mark" + struct.pack(">Q", 8) + bytes(8)
    content = whole_audio("CAF", "PCM_16", NOISE, RATE) + mark
    (tmp_path / "x.caf").write_bytes(content)
    recordings.denoise_file(tmp_path / "x.caf", tmp_path / "y.caf", used)
    assert (tmp_path / "y.caf").read_bytes().endswith(mark)
    content = whole_audio("W64", "PCM_16", NOISE, RATE)
    content += bytes(-len(content) % 8) + b"summary-list-gui" + struct.pack("<Q", 32) + bytes(8)
    (tmp_path / "x.w64").write_bytes(content[:16] + struct.pack("<Q", len(content)) + content[24:])
    notes = list[str]()
    recordings.denoise_file(tmp_path / "x.w64", tmp_path / "y.w64", used, note=notes.append)
    assert notes == [f"{tmp_path / 'y.w64'}: does not hold of its input: chunk summ"]
    for name in ("x.caf", "y.caf", "x.w64", "y.w64"):
        assert audio.read(tmp_path / name)[0].shape == (NOISE.shape[1],)


def test_what_only_flac_and_id3_hold_stays_within_and_is_named_beyond(used, tmp_path):
    audio.write(tmp_path / "x.flac", NOISE, RATE)
    file = flac.FLAC(tmp_path / "x.flac")
    file.cuesheet = flac.CueSheet(None)
    file.cuesheet.compact_disc = False
    file.cuesheet.tracks.append(flac.CueSheetTrack(255, NOISE.shape[1]))  # the lead-out
    file.metadata_blocks.append(file.cuesheet)
    file.save()
    audio.write(tmp_path / "x.mp3", NOISE, RATE)
    frames = id3.ID3()
    frames.add(id3.USLT(encoding=3, lang="eng", desc="", text="words"))
    frames.update_to_v23()
    frames.save(tmp_path / "x.mp3", v2_version=3)
    for suffix, other, lost in (("flac", "mp3", "cue sheet"), ("mp3", "flac", "ID3 USLT")):
        notes = list[str]()
        source, target = tmp_path / f"x.{suffix}", tmp_path / "out" / f"x.{suffix}"
        recordings.denoise_file(source, target, used)
        recordings.denoise_file(source, tmp_path / f"y.{other}", used, note=notes.append)
        assert notes == [f"{tmp_path / f'y.{other}'}: does not hold of its input: {lost}"]
    assert flac.FLAC(tmp_path / "out" / "x.flac").cuesheet is not None
    kept = id3.ID3(tmp_path / "out" / "x.mp3", translate=False)
    assert (kept.version, kept.getall("USLT")[0].text) == ((2, 3, 0), "words")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_tags_do_not_keep_a_file_from_being_denoised(used, tmp_path, suffix):
    """Samples that are whole come out, whatever stands in the tags."""
    tagged(tmp_path / f"x.{suffix}")
    content = bytearray((tmp_path / f"x.{suffix}").read_bytes())
    rng, title = np.random.default_rng(1), content.index("Tïtle".encode())
    done = 0
    for case in range(12):
        damaged = bytearray(content)
        for place in title + rng.integers(-25, 25, 3):
            damaged[place] = rng.integers(256)
        path, target = tmp_path / f"d.{suffix}", tmp_path / f"e{case}.{suffix}"
        path.write_bytes(damaged)
        try:
            heard = audio.read(path)[0]
        except audio.AudioError:
            continue
        recordings.denoise_file(path, target, used, note=str)
        assert audio.read(target)[0].shape == heard.shape
        done += 1
    assert done or suffix in ("ogg", "opus", "flac")  # checksums; libsndfile reads the blocks


def test_what_a_container_has_no_room_for_is_named_and_a_full_disk_is_an_error(
    used, tmp_path, monkeypatch
):
    audio.write(tmp_path / "x.mp3", NOISE, RATE)
    frames = id3.ID3()
    frames.add(id3.TIT2(encoding=3, text=["title"]))
    frames.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=bytes(1 << 24)))
    frames.save(tmp_path / "x.mp3")
    notes = list[str]()
    recordings.denoise_file(tmp_path / "x.mp3", tmp_path / "y.flac", used, note=notes.append)
    assert "y.flac: does not hold of its input: tags (" in notes[0]
    assert audio.read(tmp_path / "y.flac")[0].shape == audio.read(tmp_path / "x.mp3")[0].shape

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mutagen.id3._file.insert_bytes", full)
    with pytest.raises(audio.AudioError, match=r"z\.mp3: not written .*No space left"):
        recordings.denoise_file(tmp_path / "x.mp3", tmp_path / "z.mp3", used)
    assert not (tmp_path / "z.mp3").exists()

"""What an audio file carries beside its samples: texts, pictures, cue points, broadcast data.

    carried = tags.read(file, "WAV", {})          of the file that is read
    lost = tags.write(new, "FLAC", carried)       into the one that is written, after its samples

Between files of one family, such as WAV and RF64, all of it is carried over as it is; between
others texts and pictures are. What a file does not hold is told in words.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import mutagen
import soundfile
from mutagen import flac, id3, oggflac, oggopus, oggvorbis

from blsh_jax.corpora import containers

_FAMILIES = {"WAV": "RIFF", "WAVEX": "RIFF", "RF64": "RIFF"}
_LAYOUTS = {
    "RIFF": containers.RIFF,
    "RIFX": containers.RIFX,
    "AIFF": containers.RIFX,
    "W64": containers.W64,
    "CAF": containers.CAF,
}
# Chunks of the samples themselves, or of levels that are others now, and fillers.
_OF_SAMPLES = {
    "RIFF": (
        b"fmt ",
        b"data",
        b"fact",
        b"PEAK",
        b"ds64",
        b"levl",
        b"JUNK",
        b"junk",
        b"PAD ",
        b"FLLR",
    ),
    "AIFF": (b"COMM", b"SSND", b"FVER", b"PEAK"),
    "W64": (b"fmt ", b"data", b"fact", b"levl", b"junk"),
    "CAF": (b"desc", b"data", b"kuki", b"pakt", b"chan", b"peak", b"ovvw", b"free"),
}
_LARGEST_CHUNK = 1 << 26
_CHUNK_NAMES = {
    b"cue ": "cue points",
    b"MARK": "cue points",
    b"mark": "cue points",
    b"bext": "broadcast data (bext)",
    b"smpl": "sampler loops",
    b"inst": "instrument",
    b"INST": "instrument",
}
_ID3_CHUNKS = (b"id3 ", b"ID3 ")
# Chunks that libsndfile reads as texts, and writes.
_TEXT_CHUNKS = (b"NAME", b"AUTH", b"ANNO", b"(c) ", b"info", b"strg")
_STRINGS = {
    "RIFF": ("title", "artist", "album", "date", "genre", "comment", "copyright", "tracknumber"),
    "AIFF": ("title", "artist", "comment", "copyright"),
    "CAF": (
        *("title", "artist", "album", "date", "genre", "comment", "copyright", "tracknumber"),
        "license",
    ),
}
_STRINGS["RIFX"] = _STRINGS["RIFF"]
_OF_SAMPLES["RIFX"] = _OF_SAMPLES["RIFF"]
_ID3_TEXTS = {
    "TIT2": "title",
    "TPE1": "artist",
    "TALB": "album",
    "TPE2": "albumartist",
    "TDRC": "date",
    "TCON": "genre",
    "TRCK": "tracknumber",
    "TPOS": "discnumber",
    "TCOM": "composer",
    "TCOP": "copyright",
    "TPUB": "organization",
    "TLAN": "language",
    "TSRC": "isrc",
    "TBPM": "bpm",
}
_ENCODERS = ("encoder", "software", "vendor", "tsse", "tenc")  # of the file that was read


class Tags(NamedTuple):
    """What a file carries.

    Attributes:
        family: of its container; empty for one that carries nothing.
        texts: by the names of Vorbis comments, such as title.
        pictures: covers and the like.
        whole: what a file of the same family takes: chunks, metadata blocks, comments or ID3.
        others: what files of other families do not hold, in words.
        unread: why that could not be read; empty if it could.
    """

    family: str = ""
    texts: Mapping[str, Sequence[str]] = MappingProxyType({})
    pictures: Sequence[flac.Picture] = ()
    whole: Any = None
    others: Sequence[str] = ()
    unread: str = ""


NONE = Tags()


def family(kind: str, endian: str | None) -> str:
    """What containers exchange all they carry; empty for those that carry nothing.

    Args:
        kind: container by libsndfile's name.
        endian: byte order by libsndfile's name.
    """
    if kind in _FAMILIES:
        return "RIFX" if endian == "BIG" else _FAMILIES[kind]
    return kind if kind in (*_LAYOUTS, "FLAC", "OGG", "MP3") else ""


def read(file: BinaryIO, of: str, strings: Mapping[str, str]) -> Tags:
    """What an audio file carries.

    Args:
        file: open for reading in binary; its position is changed.
        of: its ``family``.
        strings: texts that libsndfile finds in it, of which the ones that are found here are no
            less.
    """
    texts = {name: [text] for name, text in strings.items() if name not in _ENCODERS and text}
    start = Tags(of, texts)
    file.seek(0)
    try:
        if of in _LAYOUTS:
            return _read_chunks(file, start)
        if of == "FLAC":
            return _read_flac(file, start)
        if of == "OGG":
            return _read_ogg(file, start)
        return _read_id3(file, start) if of == "MP3" else start
    except Exception as error:  # whatever readers say of damaged tags: the samples are what counts
        return start._replace(unread=str(error) or type(error).__name__)


def set_strings(file: soundfile.SoundFile, of: str, tags: Tags) -> None:
    """Texts that libsndfile writes itself, into a new file that has no samples yet.

    Args:
        file: the new file.
        of: its ``family``.
        tags: what it is to carry.
    """
    if of == tags.family and tags.whole is not None:
        return
    for name in _STRINGS.get(of, ()):
        if name in tags.texts:
            setattr(file, name, "; ".join(tags.texts[name]))


def write(file: BinaryIO, of: str, tags: Tags) -> list[str]:
    """Writes what a new file is to carry, after its samples and ``set_strings``.

    Args:
        file: the new file, open for reading and writing in binary; its position is changed.
        of: its ``family``.
        tags: what it is to carry.

    Returns:
        What it does not hold, in words.

    Raises:
        OSError: the disk is full.
    """
    try:
        return _write(file, of, tags)
    except OSError:
        raise
    except Exception as error:  # such as a picture that is too large for FLAC
        if isinstance(error.__cause__ or error.__context__, OSError):  # as mutagen passes it on
            raise OSError(str(error)) from error
        return [f"tags ({str(error) or type(error).__name__})"]


def _write(file: BinaryIO, of: str, tags: Tags) -> list[str]:
    lost = [f"tags ({tags.unread})"] if tags.unread else []
    file.seek(0)
    if tags.whole is not None and of == tags.family:
        _write_whole(file, of, tags.whole)
        return lost
    if not tags.texts and not tags.pictures:
        return [*lost, *tags.others]
    if of in ("FLAC", "OGG"):
        new = flac.FLAC(file) if of == "FLAC" else _ogg(file)
        file.seek(0)
        _fill_comments(new, tags)
        new.save(file)
    elif of == "MP3":
        _to_id3(tags).save(file)
    elif of in ("RIFF", "RIFX", "AIFF"):
        if tags.pictures or set(tags.texts) - set(_STRINGS[of]):
            content = io.BytesIO()
            _to_id3(tags).save(content)
            _append_chunks(file, of, [(_ID3_CHUNKS[of == "AIFF"], content.getvalue())])
    else:
        lost += sorted(set(tags.texts) - set(_STRINGS.get(of, ())))
        lost += ["pictures"] * bool(tags.pictures)
    return [*lost, *tags.others]


def _write_whole(file: BinaryIO, of: str, whole: Any) -> None:
    if of in _LAYOUTS:
        _append_chunks(file, of, whole)
    elif of == "FLAC":
        new: Any = flac.FLAC(file)
        own = [block for block in new.metadata_blocks if _is_of_samples(block)]
        new.metadata_blocks = own + whole
        new.tags = next((block for block in whole if isinstance(block, flac.VCFLACDict)), None)
        file.seek(0)
        new.save(file)
    elif of == "OGG":
        new = _ogg(file)
        new.tags[:] = whole
        file.seek(0)
        new.save(file)
    else:
        file.seek(0)
        version = 3 if whole.version[:2] == (2, 3) else 4
        if version == 3:
            whole.update_to_v23()
        whole.save(file, v2_version=version)


# Chunks.


def _read_chunks(file: BinaryIO, tags: Tags) -> Tags:
    texts, pictures = dict(tags.texts), list[flac.Picture]()
    found, others = list[tuple[bytes, bytes]](), list[str]()
    start = containers.after_id3(file, 0)
    for name, chunk in containers.walk(file, start, _LAYOUTS[tags.family]):
        if name[:4] in _OF_SAMPLES[tags.family]:
            continue
        if chunk.size > _LARGEST_CHUNK:
            raise ValueError(f"the chunk {_plain(name)} has {chunk.size} bytes")
        file.seek(chunk.data)
        content = file.read(chunk.size)
        if len(content) < chunk.size:
            break  # of a file that was cut there
        found.append((name, content))
        if name in _ID3_CHUNKS:
            try:
                more = _from_id3(id3.ID3(io.BytesIO(content)))
            except Exception:  # whatever is said of damaged tags, which stay as they are
                more = Tags(others=["ID3 (damaged)"])
            texts |= more.texts
            pictures += more.pictures
            others += more.others
        elif name == b"LIST" and content.startswith(b"adtl"):
            others.append("labels of cue points")
        elif name != b"LIST" and name not in _TEXT_CHUNKS:
            others.append(_CHUNK_NAMES.get(name, f"chunk {_plain(name)}"))
    # libsndfile, and what is built on it, plays chunks after the audio of W64.
    whole = None if tags.family == "W64" else found
    return Tags(tags.family, texts, pictures, whole, others)


def _plain(name: bytes) -> str:
    return name[:4].decode("ascii", "replace").strip()


def _append_chunks(file: BinaryIO, of: str, chunks: Iterable[tuple[bytes, bytes]]) -> None:
    """Chunks after all others, and the size of the whole as it is then."""
    layout = _LAYOUTS[of]
    end = file.seek(0, io.SEEK_END)
    for name, content in chunks:
        file.write(bytes(-end % layout.align))
        size = len(content) + (layout.name + layout.size) * layout.whole
        file.write(name + size.to_bytes(layout.size, layout.order) + content)
        end = file.tell()
    file.write(bytes(-end % layout.align))
    end = file.tell()
    file.seek(0)
    if file.read(4) == b"RF64":
        file.seek(20)
        file.write((end - 8).to_bytes(8, "little"))
    elif of != "CAF":
        file.seek(4)
        file.write((end - 8).to_bytes(4, layout.order))


# Comments of Vorbis.


def _is_of_samples(block: Any) -> bool:
    return isinstance(block, (flac.StreamInfo, flac.SeekTable))


def _read_flac(file: BinaryIO, tags: Tags) -> Tags:
    read = flac.FLAC(file)
    blocks = [
        block
        for block in read.metadata_blocks
        if not _is_of_samples(block) and not isinstance(block, flac.Padding)
    ]
    others = ["cue sheet"] * bool(read.cuesheet)
    texts, pictures = _from_comments(read.tags or [])
    return Tags(tags.family, {**tags.texts, **texts}, read.pictures + pictures, blocks, others)


def _ogg(file: BinaryIO) -> Any:
    kinds = [oggvorbis.OggVorbis, oggopus.OggOpus, oggflac.OggFLAC]
    found = mutagen.File(file, options=kinds)
    if found is None:
        raise ValueError("an Ogg file of a kind that is not known")
    return found


def _read_ogg(file: BinaryIO, tags: Tags) -> Tags:
    comments = list(_ogg(file).tags)
    texts, pictures = _from_comments(comments)
    return Tags(tags.family, {**tags.texts, **texts}, pictures, comments)


def _from_comments(
    comments: Iterable[tuple[str, str]],
) -> tuple[dict[str, list[str]], list[flac.Picture]]:
    texts: dict[str, list[str]] = {}
    pictures = []
    for name, text in comments:
        if name.lower() == "metadata_block_picture":
            pictures.append(flac.Picture(base64.b64decode(text)))
        elif name.lower() not in _ENCODERS:
            texts.setdefault(name.lower(), []).append(text)
    return texts, pictures


def _fill_comments(new: Any, tags: Tags) -> None:
    if new.tags is None:
        new.add_tags()
    for name, values in tags.texts.items():
        new.tags[name] = values
    for picture in tags.pictures:
        if isinstance(new, flac.FLAC):
            new.add_picture(picture)
        else:
            coded = base64.b64encode(picture.write()).decode()
            new.tags.append(("metadata_block_picture", coded))


# ID3.


def _read_id3(file: BinaryIO, tags: Tags) -> Tags:
    try:
        whole = id3.ID3(file)
    except id3.ID3NoHeaderError:
        return tags
    found = _from_id3(whole)
    return found._replace(family=tags.family, texts={**tags.texts, **found.texts})


def _from_id3(whole: id3.ID3) -> Tags:
    texts: dict[str, list[str]] = {}
    pictures, others = [], []
    frames: Iterable[Any] = whole.values()
    for frame in frames:
        if name := _text_name(frame):
            texts.setdefault(name, []).extend(str(text) for text in frame.text)
        elif frame.FrameID == "APIC":
            picture = flac.Picture()
            picture.type, picture.mime = frame.type, frame.mime
            picture.desc, picture.data = frame.desc, frame.data
            pictures.append(picture)
        elif frame.FrameID.lower() not in _ENCODERS:
            others.append(f"ID3 {frame.FrameID}")
    return Tags("", texts, pictures, whole, sorted(set(others)))


def _text_name(frame: Any) -> str:
    """The name among Vorbis comments; empty if there is none."""
    if frame.FrameID == "TXXX":
        plain = frame.desc.isascii() and frame.desc.isprintable() and "=" not in frame.desc
        return frame.desc.lower() * plain * (frame.desc.lower() not in _ENCODERS)
    if frame.FrameID == "COMM":
        return "comment"
    return _ID3_TEXTS.get(frame.FrameID, "")


def _to_id3(tags: Tags) -> id3.ID3:
    new = id3.ID3()
    frames = {name: frame for frame, name in _ID3_TEXTS.items()}
    for name, values in tags.texts.items():
        if name == "comment":
            new.add(id3.COMM(encoding=3, lang="XXX", desc="", text=values))
        elif name in frames:
            new.add(id3.Frames[frames[name]](encoding=3, text=values))
        else:
            new.add(id3.TXXX(encoding=3, desc=name, text=values))
    for number, picture in enumerate(tags.pictures):
        desc = picture.desc or " " * number  # of two of one description only the last would stay
        new.add(
            id3.APIC(encoding=3, mime=picture.mime, type=picture.type, desc=desc, data=picture.data)
        )
    return new

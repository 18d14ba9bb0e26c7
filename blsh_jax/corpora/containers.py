"""Whether an audio file is whole: what its container declares, against what is there.

libsndfile reads what is left of a file that was cut short, and does not say so. It reads nothing,
or not all, of some files that are whole: where a recorder or a pipe left the length open, of an MP3
file of varying bit rate without a count of frames, and of several MP3 or Ogg files joined to one.
What such a file lacks is told here, or with what bytes changed libsndfile reads all of it.

Sources: the specifications of RIFF, EBU Tech 3306 (RF64), AIFF, Sun AU, Sony Wave64, Apple CAF,
NIST SPHERE, RFC 3533 (Ogg), ISO/IEC 11172-3 and 13818-3 (MP3); for the rest what libsndfile reads.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, NamedTuple

_Order = Literal["little", "big"]

_MOST_CHUNKS = 10_000  # a header of more of them, or of more tags, is none
# Writers that stream do not know sizes yet and write zero, or one about 2 or 4 GiB.
_OPEN_32 = (range(0x7F000000, 0x80001000), range(0xFFFFF000, 0x100000000))
_OPEN_64 = 1 << 62
_LARGEST_32 = 0xFFFFFFFF
_SYNCHSAFE = (21, 14, 7, 0)  # shifts of the bytes of a size of ID3, of 7 bits each
_FAR = 1 << 40  # beyond the end of every file, and within what file systems seek


class Edit(NamedTuple):
    """Bytes that libsndfile has to see in place of those of the file.

    Attributes:
        start: first byte that is replaced.
        stop: the byte after the last one.
        new: what stands there instead.
        end: where the file ends; None is its own end.
    """

    start: int
    stop: int
    new: bytes
    end: int | None = None


class Contents(NamedTuple):
    """What a look at a container finds.

    Attributes:
        missing: what the file lacks, in words; empty if nothing, or if it cannot be known.
        edits: what lets libsndfile read all of it: so edited, the files that hold its audio one
            after another. None if it reads all by itself.
    """

    missing: str = ""
    edits: tuple[Edit, ...] = ()


def inspect(file: BinaryIO) -> Contents:
    """Compares the length that an audio file declares with its own.

    Reads headers alone, except of Ogg (every byte, for the checksums) and MP3 (every frame's
    header). FLAC is not looked at: it counts its samples, which decoding compares. PAF, PVF, IRCAM
    and XI declare no length.

    Args:
        file: open for reading in binary, buffered; its position is changed.

    Returns:
        What it lacks, or what libsndfile has to be shown. A file of another kind lacks nothing.
    """
    start = after_id3(file, 0)
    head = _at(file, start, 16)
    for magic, look in _LOOKS.items():
        if head.startswith(magic):
            return look(file, start)
    return _mp3(file, start) if _mpeg_frame(head) else Contents()


class Edited(io.RawIOBase):
    """A file in which some bytes are replaced, for reading.

    Args:
        file: the file, open for reading.
        edit: what is replaced.
    """

    def __init__(self, file: BinaryIO, edit: Edit):
        self._file, self._edit, self._position = file, edit, 0
        self._longer = len(edit.new) - (edit.stop - edit.start)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of every file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        end = _length(self._file) if self._edit.end is None else self._edit.end
        self._position = max(0, base.get(whence, end + self._longer) + offset)
        return self._position

    def readinto(self, buffer, /) -> int:  # type: ignore[no-untyped-def]
        """As of every file; fewer bytes than the buffer holds only at the end."""
        view = memoryview(buffer)
        start, _, new, end = self._edit
        filled = 0
        while filled < len(view):
            within, room = self._position - start, len(view) - filled
            if within < 0:
                piece = _at(self._file, self._position, min(room, -within))
            elif within < len(new):
                piece = new[within : within + room]
            else:
                place = self._position - self._longer
                room = room if end is None else min(room, max(0, end - place))
                piece = _at(self._file, place, room)
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled, self._position = filled + len(piece), self._position + len(piece)
        return filled


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Up to ``count`` bytes; fewer at the end."""
    file.seek(min(offset, _FAR))
    return file.read(count)


def _number(file: BinaryIO, offset: int, count: int, order: _Order) -> int:
    """An unsigned integer; of what is there where the file ends, which another check finds."""
    return int.from_bytes(_at(file, offset, count), order)


def _length(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def after_id3(file: BinaryIO, start: int) -> int:
    """The byte after any ID3v2 tags."""
    for _ in range(_MOST_CHUNKS):
        head = _at(file, start, 10)
        if len(head) < 10 or not head.startswith(b"ID3"):
            break
        start += 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], _SYNCHSAFE, strict=True)
        )
    return start


def _ending_at(file: BinaryIO, end: int) -> Contents:
    """What a file lacks whose audio should end before byte ``end``."""
    length = _length(file)
    return Contents(f"{length} bytes of {end}" if length < end else "")


# Chunks: RIFF and what came after it.


class Layout(NamedTuple):
    """How chunks lie side by side.

    Attributes:
        first: where the first begins.
        name: bytes of a name.
        size: bytes of a size.
        order: of a size.
        align: a chunk begins at a multiple of this.
        whole: sizes count name and size, too.
    """

    first: int
    name: int
    size: int
    order: _Order
    align: int
    whole: bool = False


class Chunk(NamedTuple):
    """A chunk: where its size stands, where its data begin, how many bytes they should be."""

    field: int
    data: int
    size: int


RIFF = Layout(12, 4, 4, "little", 2)
RIFX = RIFF._replace(order="big")
W64 = Layout(40, 16, 8, "little", 8, whole=True)
CAF = Layout(8, 4, 8, "big", 1)


def walk(file: BinaryIO, start: int, chunks: Layout) -> Iterator[tuple[bytes, Chunk]]:
    """All chunks and their names, in order.

    Args:
        file: open for reading in binary; its position is changed.
        start: where the file begins in it.
        chunks: how they lie.
    """
    position, length, large = start + chunks.first, _length(file), 0
    for _ in range(_MOST_CHUNKS):
        data = position + chunks.name + chunks.size
        if data > length:
            break
        name = _at(file, position, chunks.name)
        size = _number(file, position + chunks.name, chunks.size, chunks.order)
        size = max(0, size - (data - position)) if chunks.whole else size
        if name == b"ds64":  # of RF64: the size of the audio, which its own chunk has no room for
            large = _number(file, data + 8, 8, "little")
        elif name == b"data" and size == _LARGEST_32 and large:
            size = large
        yield name, Chunk(position + chunks.name, data, size)
        position = data + size + -size % chunks.align


def _find(file: BinaryIO, start: int, chunks: Layout, *names: bytes) -> Chunk | None:
    """The first chunk of one of the names."""
    found = (chunk for name, chunk in walk(file, start, chunks) if name.startswith(names))
    return next(found, None)


def _is_open_32(size: int) -> bool:
    return any(size in sizes for sizes in _OPEN_32)


def _riff(file: BinaryIO, start: int, chunks: Layout = RIFF) -> Contents:
    chunk = _find(file, start, chunks, b"data")
    if chunk is None:
        return Contents()
    length, order = _length(file), chunks.order
    whole = _number(file, start + 4, 4, order)
    end = chunk.data + chunk.size
    # A size that is open may be the right one, if the file as a whole has the size that it says.
    if chunk.size == 0:
        known = start + 8 + whole > chunk.data and not _is_open_32(whole)
    else:
        known = not _is_open_32(chunk.size) or end <= length == start + 8 + whole
    if known:
        return _ending_at(file, end)
    present = length - chunk.data
    if present <= _LARGEST_32:
        return Contents("", (Edit(chunk.field, chunk.data, present.to_bytes(4, order)),))
    # More than RIFF holds: as RF64, of the same chunks.
    sizes = (length).to_bytes(8, "little") + present.to_bytes(8, "little") + bytes(12)
    between = _at(file, start + 12, chunk.field - 4 - (start + 12))
    head = b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + sizes + between + b"data\xff\xff\xff\xff"
    return Contents("", (Edit(start, chunk.data, head),) if order == "little" else ())


def _rf64(file: BinaryIO, start: int) -> Contents:
    """The size of the audio stands in the first chunk."""
    sizes, chunk = _find(file, start, RIFF, b"ds64"), _find(file, start, RIFF, b"data")
    if sizes is None or chunk is None:
        return Contents()
    size = _number(file, sizes.data + 8, 8, "little")
    if 0 < size < _OPEN_64:
        return _ending_at(file, chunk.data + size)
    present = (_length(file) - chunk.data).to_bytes(8, "little")
    return Contents("", (Edit(sizes.data + 8, sizes.data + 16, present),))


def _form(file: BinaryIO, start: int) -> Contents:
    """AIFF, AIFF-C and 8SVX. libsndfile itself reads all where the size is open."""
    chunk = _find(file, start, RIFX, b"SSND", b"BODY")
    if chunk is None or chunk.size == 0 or _is_open_32(chunk.size):
        return Contents()
    return _ending_at(file, chunk.data + chunk.size)


def _w64(file: BinaryIO, start: int) -> Contents:
    """Where the size is open, libsndfile itself reads all, and chunks after the audio as audio."""
    chunk = _find(file, start, W64, b"data")
    if chunk is None or not 0 < chunk.size < _OPEN_64:
        return Contents()
    end = chunk.data + chunk.size
    return Contents("", (Edit(0, 0, b"", end),)) if end < _length(file) else _ending_at(file, end)


def _caf(file: BinaryIO, start: int) -> Contents:
    chunk = _find(file, start, CAF, b"data")
    if chunk is None:
        return Contents()
    if 0 < chunk.size < _OPEN_64:
        return _ending_at(file, chunk.data + chunk.size)
    present = (_length(file) - chunk.data).to_bytes(8, "big")
    return Contents("", (Edit(chunk.field, chunk.data, present),))


# Headers of fixed fields.


def _au(file: BinaryIO, start: int, order: _Order = "big") -> Contents:
    data, size = (_number(file, start + field, 4, order) for field in (4, 8))
    if size > 0 and not _is_open_32(size):
        return _ending_at(file, start + data + size)
    return Contents("", (Edit(start + 8, start + 12, b"\xff\xff\xff\xff"),))


def _sphere(file: BinaryIO, start: int) -> Contents:
    """A header of lines such as ``sample_count -i 46797``; its second line is its own size."""
    lines = _at(file, start, 1024).split(b"\n")
    words = [line.split() for line in lines]
    fields = {w[0]: int(w[2]) for w in words if len(w) == 3 and w[2].isdigit()}
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if any(name not in fields for name in names) or not lines[1].strip().isdigit():
        return Contents()
    samples, channels, width = (fields[name] for name in names)
    return _ending_at(file, start + int(lines[1]) + samples * channels * width)


def _avr(file: BinaryIO, start: int) -> Contents:
    stereo, bits = (_number(file, start + field, 2, "big") for field in (12, 14))
    frames = _number(file, start + 26, 4, "big")
    return _ending_at(file, start + 128 + frames * (1 + bool(stereo)) * bits // 8)


def _mpc2k(file: BinaryIO, start: int) -> Contents:
    stereo = _number(file, start + 21, 1, "little")
    return _ending_at(file, start + 42 + 2 * _number(file, start + 30, 4, "little") * (1 + stereo))


def _wve(file: BinaryIO, start: int) -> Contents:
    return _ending_at(file, start + 32 + _number(file, start + 18, 4, "big"))


def _sds(file: BinaryIO, start: int) -> Contents:
    """Packets of 120 bytes of samples, 7 bits a byte."""
    head = _at(file, start, 21)
    if len(head) < 21:
        return Contents()
    samples = head[10] | head[11] << 7 | head[12] << 14
    in_packet = 120 // max(1, -(-head[6] // 7))
    return _ending_at(file, start + 21 + 127 * -(-samples // max(1, in_packet)))


def _voc(file: BinaryIO, start: int) -> Contents:
    """Blocks, the last of them of type 0, which has no size."""
    position, length = start + _number(file, start + 20, 2, "little"), _length(file)
    for _ in range(_MOST_CHUNKS):
        if position + 4 > length or not _number(file, position, 1, "little"):
            break
        position += 4 + _number(file, position + 1, 3, "little")
    return _ending_at(file, position)


def _mat4(file: BinaryIO, start: int, order: _Order = "little") -> Contents:
    """Two matrices, each of a header of five numbers, a name, and values."""
    position = start
    for _ in range(2):
        kind, rows, columns, _, name = (
            _number(file, position + field, 4, order) for field in range(0, 20, 4)
        )
        width = (8, 4, 4, 2, 2, 1)[min(kind // 10 % 10, 5)]
        position += 20 + name + rows * columns * width
    return _ending_at(file, position)


def _mat5(file: BinaryIO, start: int) -> Contents:
    """Elements, each of a type, a size and so many bytes; the fourth in the second is the audio."""
    order: _Order = "little" if _at(file, start + 126, 2) == b"IM" else "big"
    size_at = lambda position: _number(file, position + 4, 4, order)
    position = start + 128
    position += 8 + size_at(position) + 8
    for _ in range(3):
        size = size_at(position)
        position += 8 + size + -size % 8
    return _ending_at(file, position + 8 + size_at(position))


# Streams of pages and frames.

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg(file: BinaryIO, start: int) -> Contents:
    """Every page by its checksum and its number, and each stream by its last page."""
    missing, links, end = _ogg_pages(file, start)
    # libsndfile reads one stream alone, which has to end where the file does.
    ends = [*links[1:], None if missing else end]
    parts = tuple(Edit(0, a, b"", b) for a, b in zip(links, ends, strict=True))
    return Contents(missing, parts if len(parts) > 1 else ())


def _ogg_pages(file: BinaryIO, start: int) -> tuple[str, list[int], int]:
    """What is missing, where streams begin that follow one another, where the last page ends."""
    length, position = _length(file), start
    numbers: dict[bytes, int] = {}  # of the pages to come, of streams that go on
    links = [start]
    while (head := _at(file, position, 27)).startswith(b"OggS") and len(head) == 27:
        segments = file.read(head[26])
        end = position + 27 + len(segments) + sum(segments)
        if len(segments) < head[26] or end > length:
            return f"{length} bytes of at least {end}", links, position
        body = file.read(sum(segments))
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        checked = head[:22] + bytes(4) + head[26:] + segments + body
        if _ogg_checksum(checked) != int.from_bytes(head[22:26], "little"):
            return f"the page at byte {position} is damaged", links, position
        if number != numbers.get(stream, number):
            return f"pages are missing before byte {position}", links, position
        if position > start and not numbers:
            links.append(position)
        numbers[stream] = number + 1
        if head[5] & 4:
            del numbers[stream]
        position = end
    if numbers and position + 27 <= length:
        return f"no page at byte {position} of {length}", links, position
    return "it ends before the last page of its stream" * bool(numbers), links, position


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of generator 0x04C11DB7, highest bit first, from 0: that of zlib in a mirror."""
    mirrored = ~zlib.crc32(page.translate(_REVERSED), _LARGEST_32) & _LARGEST_32
    return int(f"{mirrored:032b}"[::-1], 2)


# Bits per second / 1000 by index, of MPEG 1 layers I to III, and of MPEG 2 and 2.5 layer I, others.
_KBPS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


class _Frame(NamedTuple):
    """What the header of a frame says: version, layer and rate, bytes of it, side information."""

    kind: tuple[int, int, int]
    size: int
    side: int


def _mpeg_frame(head: bytes) -> _Frame | None:
    """None if there is no frame, or one of a free format, whose size is not said."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    first, mono = version == 3, head[3] >> 6 == 3
    hertz = _MPEG_RATES[version][rate]
    bytes_per_second = 125 * _KBPS[first, layer][bits - 1]
    if layer == 1:
        size = (96 * bytes_per_second // hertz + padding) * 4
    else:
        size = (1152 if first or layer == 2 else 576) * bytes_per_second // hertz + padding
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame((version, layer, rate), size, side)


def _mp3(file: BinaryIO, start: int) -> Contents:
    """Every frame; where the first one counts the others, all of them have to be there."""
    first = _mpeg_frame(_at(file, start, 4))
    assert first is not None
    length, position, count, bit_rates = _length(file), start, 0, set()
    while True:
        head = _at(file, position, 4)
        if (frame := _mpeg_frame(head)) and frame.kind == first.kind:
            if position + frame.size > length:
                return Contents(f"{length} bytes of at least {position + frame.size}")
            bit_rates.add(head[2] >> 4)
            count, position = count + 1, position + frame.size
        elif (following := after_id3(file, position)) > position:
            position = following
        else:
            break
    field, declared = _declared_frames(file, start, first)
    if field is not None and declared > 0:
        count -= 1
        if count < declared:
            return Contents(f"{count} MPEG frames of {declared}")
    else:
        field = None
    rest = _at(file, position, 64)
    if _mpeg_frame(rest) or (field is None and any(rest) and not rest.startswith(_TAGS)):
        return Contents(f"no frame of the same kind at byte {position} of {length}")
    if field is None:  # libsndfile takes the bit rate of the first frame for that of all
        counting = _counting_frame(_at(file, start, 4), first, count)
        return Contents("", (Edit(start, start, counting),) if len(bit_rates) > 1 else ())
    edit = Edit(field, field + 4, count.to_bytes(4, "big"))
    return Contents("", (edit,) if count > declared else ())


def _declared_frames(file: BinaryIO, start: int, first: _Frame) -> tuple[int | None, int]:
    """Where the first frame says how many follow, and the number: a Xing, Info or VBRI header."""
    head = _at(file, start, 64)
    at = 4 + first.side
    if head[at : at + 4] in (b"Xing", b"Info") and head[at + 7] & 1:
        return start + at + 8, int.from_bytes(head[at + 8 : at + 12], "big")
    if head[36:40] == b"VBRI":
        return start + 50, int.from_bytes(head[50:54], "big")
    return None, 0


def _counting_frame(head: bytes, first: _Frame, count: int) -> bytes:
    """A frame without sound that says how many follow."""
    xing = b"Xing\0\0\0\1" + count.to_bytes(4, "big")
    # The highest bit rate, as all others may be too small to hold it.
    head = head[:1] + bytes([head[1] | 1, 0xE0 | head[2] & 0x0D]) + head[3:4]
    frame = _mpeg_frame(head)
    assert frame is not None
    return (head + bytes(first.side) + xing).ljust(frame.size, b"\0")


_LOOKS: dict[bytes, Callable[[BinaryIO, int], Contents]] = {
    b"RIFF": _riff,
    b"RIFX": lambda file, start: _riff(file, start, RIFX),
    b"RF64": _rf64,
    b"FORM": _form,
    b"riff": _w64,
    b"caff": _caf,
    b".snd": _au,
    b"dns.": lambda file, start: _au(file, start, "little"),
    b"NIST_1A": _sphere,
    b"OggS": _ogg,
    b"2BIT": _avr,
    b"\x01\x04": _mpc2k,
    b"ALawSoundFile**": _wve,
    b"\xf0\x7e": _sds,
    b"Creative Voice": _voc,
    b"\0\0\0\0\1\0\0\0\1\0\0\0": _mat4,
    b"\0\0\x03\xe8\0\0\0\1\0\0\0\1": lambda file, start: _mat4(file, start, "big"),
    b"MATLAB 5.0": _mat5,
}

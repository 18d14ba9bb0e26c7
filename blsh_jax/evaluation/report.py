"""Pages that play: one HTML file with sound, pictures and tables inside, and nothing fetched.

A page is a title, a lead and sections; a section is a heading and fragments of HTML, made by
``paragraph``, ``table``, ``picture``, ``gallery`` and ``listening``. All text is escaped.
"""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from matplotlib.figure import Figure

from blsh_jax.config import StftConfig
from blsh_jax.evaluation import plots, records
from blsh_jax.files import replacing

# The page may show and play what it holds, and nothing else: no script, no network.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; }
figure { margin: 0; }
figcaption { font-size: .9rem; }
img { display: block; width: 100%; height: auto; background: white; border-radius: .25rem; }
audio { display: block; width: 100%; margin: .5rem 0; }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.sound { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; }
.sound h3 { margin: 0; font-size: 1.05rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
"""  # noqa: E501


class Section(NamedTuple):
    """A heading and what stands below it, as HTML."""

    heading: str
    fragments: Sequence[str]


class Sound(NamedTuple):
    """Something to listen to.

    Attributes:
        title: what it is.
        signal: (n,) float32.
        mask: (T, F) in [0, 1] that it was made with, None if it was not.
        note: a line about it, such as its score.
    """

    title: str
    signal: np.ndarray
    mask: np.ndarray | None = None
    note: str = ""


def write(path: str | os.PathLike, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write a page, whole or not at all.

    Args:
        path: the file (.html).
        title: of the page.
        lead: the first paragraph.
        sections: what follows.
    """
    body = "\n".join(
        "\n".join([f"<section>\n<h2>{html.escape(heading)}</h2>", *fragments, "</section>"])
        for heading, fragments in sections
    )
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{paragraph(lead)}
{body}
</body>
</html>
"""
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A table; floats with two decimals, missing values empty.

    Args:
        rows: of a record.
        columns: name in the rows to heading, in order.
    """
    row = lambda tag, texts: "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
    lines = [row("th", columns.values())]
    lines += [row("td", texts) for texts in records.cells(rows, columns)]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def picture(figure: Figure, description: str) -> str:
    """A figure as an image inside the page.

    Args:
        figure: what to draw.
        description: what it shows, for those who cannot see it.
    """
    uri = _data_uri("image/png", plots.png(figure))
    return f'<img src="{uri}" alt="{html.escape(description)}">'


def gallery(fragments: Sequence[str]) -> str:
    """Fragments side by side, as many as the screen is wide."""
    return '<div class="gallery">\n' + "\n".join(fragments) + "\n</div>"


def listening(sounds: Sequence[Sound], stft: StftConfig) -> str:
    """Players with their spectrograms and masks.

    Args:
        sounds: what to listen to; all share one gain, at which none clips, and one colour scale.
        stft: the transform of the spectrograms; its sample rate is that of the sounds.
    """
    signals = [sound.signal for sound in sounds]
    top = plots.peak_level(signals, stft)
    gain = 1 / max(1.0, *(float(np.abs(signal).max()) for signal in signals))
    return gallery([_player(sound, stft, top, gain) for sound in sounds])


def _player(sound: Sound, stft: StftConfig, top: float, gain: float) -> str:
    spectrogram = plots.spectrograms({"": sound.signal}, stft, top)
    pictures = [picture(spectrogram, f"spectrogram: {sound.title}")]
    if sound.mask is not None:
        drawn = plots.mask(sound.mask, len(sound.signal), stft)
        pictures.append(picture(drawn, f"mask: {sound.title}"))
    uri = _data_uri("audio/flac", _flac(gain * sound.signal, stft.sample_rate))
    title = html.escape(sound.title)
    return "\n".join(
        [
            f'<article class="sound">\n<h3>{title}</h3>',
            f'<audio controls preload="metadata" src="{uri}" aria-label="{title}"></audio>',
            paragraph(sound.note) if sound.note else "",
            *pictures,
            "</article>",
        ]
    )


def _flac(signal: np.ndarray, sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, signal, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

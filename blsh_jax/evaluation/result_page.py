"""Pages to listen to: of a separation experiment, with scores and matrices, or of one's own files.

    shown = examples(systems, mixtures, stft)
    write("report.html", title, lead, rows, shown, model)
    write_comparison("report.html", [("noisy.wav", "clean.wav")])

Sound and pictures lie inside the file, and nothing is fetched. All text is escaped.
"""

import base64
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import soundfile

from blsh_jax import corpora, evaluation, files, training
from blsh_jax._extras import extra
from blsh_jax.config import StftConfig
from blsh_jax.corpora import Batch, Mixtures, audio
from blsh_jax.evaluation import System, metrics, plots, records
from blsh_jax.models.model import Model
from blsh_jax.paper import codes, similarity, spectra
from blsh_jax.search import packing

with extra("report"):
    from matplotlib.figure import Figure

_COLUMNS = {
    "method": "method",
    "num_bits": "bits",
    "sdr": "SDR (dB)",
    "sir": "SIR (dB)",
    "sar": "SAR (dB)",
    "si_sdr": "SI-SDR (dB)",
    "utterances": "mixtures",
}
_ABOUT_SCORES = "Means over the mixtures, weighted by their length."
_ABOUT_MATRICES = (
    "Every frame of the first mixture above, or of its first 10 seconds, is compared with every "
    "other one; both axes are time. "
    "The target is what the codes were trained to reproduce. A code's matrix is the weighted share "
    "of bits that two frames agree on, about half by chance, so it is brighter than the target; "
    "what counts is which pairs stand out."
)
_MOST_COMPARED, _COMPARED_SECONDS = 12, 15.0
_HIGHEST_RATE = 48_000
_SHOWN_SECONDS = 10  # the matrices grow with the square
_ABOUT_SOUNDS = (
    "All sounds of a mixture are played at one gain and drawn in one colour scale. A mask says how "
    "much of each time and frequency is kept; the ideal binary mask needs the clean speech "
    "and is the upper bound."
)
# The page may show and play what it holds, and nothing else: no script, no network.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; }
img { display: block; width: 100%; height: auto; background: white; border-radius: .25rem; }
audio { display: block; width: 100%; margin: .5rem 0; }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.sound { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; }
.sound h3 { margin: 0; font-size: 1.05rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
</style>
"""  # noqa: E501


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


class Example(NamedTuple):
    """A mixture to hear: its name, and sounds from noisy to clean."""

    title: str
    sounds: Sequence[Sound]


def examples(
    systems: Sequence[System], mixtures: Mixtures, stft: StftConfig, count: int = 2
) -> list[Example]:
    """Run systems on a few mixtures for people to hear.

    Args:
        systems: what to hear, in order.
        mixtures: of the longest ones, the first with noises that differ are taken.
        stft: the transform of the systems.
        count: how many mixtures at most.

    Returns:
        The examples; the clean speech stands last in each.
    """
    # A batch of the size that evaluation uses, so that nothing has to be compiled again.
    batch = next(corpora.batches(mixtures, evaluation.BATCH_SIZE))
    keys = [mixtures[int(index)].key for index in batch.indices if index >= 0]
    noises = [key.rpartition("+")[2] for key in keys]
    rows = sorted({name: noises.index(name) for name in noises}.values())[:count]
    columns = [_heard(system, batch, rows, stft) for system in systems]
    columns.append([Sound("clean", batch.speech[row, : batch.lengths[row]]) for row in rows])
    return [
        Example(keys[row].replace("+", " in "), sounds)
        for row, sounds in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def self_similarities(
    model: Model, signal: np.ndarray, num_bits: Sequence[int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The target SSM of the frames of a signal, in their order, and those of their codes.

    Args:
        model: a trained model.
        signal: (n,) float32 at the model's rate.
        num_bits: code lengths.

    Returns:
        (T, T), and title to (T, T).

    Source: [ICASSP20] figure 2.
    """
    fit, mixture = model.config.fit, jnp.asarray(signal)[None]
    frames = training.analyse(mixture, jnp.zeros_like(mixture), model.config).frames[0]
    target = similarity.self_similarity(frames, fit.target, fit.sigma2)
    bits = packing.unpack_bits(codes.encode(model.hasher, frames), model.hasher.num_bits)
    learned = {
        f"BLSH, {length} bits": np.asarray(
            codes.self_similarity(bits[:, :length], model.hasher.betas[:length])
        )
        for length in num_bits
    }
    return np.asarray(target), learned


def write(
    path: str | os.PathLike,
    title: str,
    lead: str,
    rows: Sequence[Mapping[str, Any]],
    shown: Sequence[Example],
    model: Model,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file (.html).
        title: of the page.
        lead: its first paragraph.
        rows: of ``evaluation.evaluate``.
        shown: of ``examples``.
        model: what was evaluated.
    """
    stft = model.separation.stft
    curve = _picture(plots.sdr_over_bits(rows), "SDR in dB over the code length")
    sections = [_section("Scores", _ABOUT_SCORES, _table(rows), _gallery(curve))]
    for example in shown:
        sections.append(_section(example.title, _ABOUT_SOUNDS, _players(example.sounds, stft)))
    lengths = sorted({row["num_bits"] for row in rows if row["method"] == "blsh"})
    if shown and lengths:
        signal = shown[0].sounds[0].signal[: round(_SHOWN_SECONDS * stft.sample_rate)]
        target, learned = self_similarities(model, signal, lengths)
        pictures = [
            _picture(plots.matrices({name: matrix}, target), f"self-similarity matrix: {name}")
            for name, matrix in ({"target": target} | learned).items()
        ]
        sections.append(_section("Self-similarity", _ABOUT_MATRICES, _gallery(*pictures)))
    _write_page(path, title, lead, sections)


def write_comparison(
    path: str | os.PathLike, pairs: Sequence[tuple[str | os.PathLike, str | os.PathLike]]
) -> None:
    """Write a page of recordings before and after, whole or not at all.

    Of many the first few are shown, and of each the start, so that the page stays small.

    Args:
        path: the file (.html).
        pairs: recordings as they were, and denoised.

    Raises:
        AudioError: one cannot be read.
    """
    shown = pairs[:_MOST_COMPARED]
    sections = []
    for source, target in shown:
        sounds, stft = _compared(Path(source), Path(target))
        # Names need not be valid in any encoding.
        name = os.fsencode(Path(source).name).decode(errors="replace")
        sections.append(_section(name, "", _players(sounds, stft)))
    of_all = f"{len(shown)} of {len(pairs)}" if len(pairs) > len(shown) else f"{len(pairs)}"
    lead = (
        f"{of_all} recordings before and after, the first {_COMPARED_SECONDS:.0f} seconds of each, "
        "its channels averaged. Both are played at one gain and drawn in one colour scale."
    )
    _write_page(path, "Before and after", lead, sections)


def _compared(source: Path, target: Path) -> tuple[list[Sound], StftConfig]:
    """The starts of a recording and of what became of it, at a rate that browsers play."""
    signals = {"before": _start(source), "after": _start(target)}
    rate = min(signals["after"][1], _HIGHEST_RATE)
    sounds = [
        Sound(title, audio.resample(signal, own_rate, rate) if own_rate != rate else signal)
        for title, (signal, own_rate) in signals.items()
    ]
    return sounds, StftConfig(sample_rate=rate)


def _start(path: Path) -> tuple[np.ndarray, int]:
    """The first seconds of a file, (n,) float32, and their rate."""
    blocks, left = [], 0.0
    with audio.reading(path, partial=True) as file:
        left = _COMPARED_SECONDS * file.sample_rate
        for block in file.blocks(1 << 16):
            blocks.append(block[:, : math.ceil(min(left, block.shape[1]))].mean(axis=0))
            left -= block.shape[1]
            if left <= 0:
                break
        return np.concatenate(blocks).astype(np.float32), file.sample_rate


def _write_page(path: str | os.PathLike, title: str, lead: str, sections: Sequence[str]) -> None:
    name = html.escape(title)
    start = f"{_HEAD}<title>{name}</title>\n</head>\n<body>\n<h1>{name}</h1>\n{_paragraph(lead)}"
    page = "\n".join([start, *sections, "</body>\n</html>\n"])
    files.write(path, page.encode())


def _heard(system: System, batch: Batch, rows: Sequence[int], stft: StftConfig) -> list[Sound]:
    """What a system makes of some rows of a batch."""
    speech, noise = jnp.asarray(batch.speech[rows]), jnp.asarray(batch.noise[rows])
    estimate, mask = system.separate(jnp.asarray(batch.speech), jnp.asarray(batch.noise))
    estimate, lengths = estimate[jnp.asarray(rows)], batch.lengths[rows]
    references, estimates = (jnp.stack([x, noise], axis=1) for x in (speech, estimate))
    sdr = metrics.bss_eval(references, estimates, lengths).sdr[:, 0]
    title = plots.name(system.method) + (f", {system.num_bits} bits" if system.num_bits else "")
    sounds = []
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        kept = None if mask is None else np.asarray(mask[row, : spectra.num_frames(int(n), stft)])
        sounds.append(Sound(title, np.asarray(estimate[i, :n]), kept, f"SDR {sdr[i]:.1f} dB"))
    return sounds


def _section(heading: str, about: str, *fragments: str) -> str:
    """A heading and what stands below it."""
    start = f"<section>\n<h2>{html.escape(heading)}</h2>"
    return "\n".join([start, _paragraph(about), *fragments, "</section>"])


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _gallery(*fragments: str) -> str:
    """Fragments side by side, as many as the screen is wide."""
    return "\n".join(['<div class="gallery">', *fragments, "</div>"])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The scores; floats with two decimals, missing values empty."""
    named = [{**row, "method": plots.name(row["method"])} for row in rows]
    line = lambda tag, texts: "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
    lines = [line("th", _COLUMNS.values())]
    lines += [line("td", texts) for texts in records.cells(named, _COLUMNS)]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def _picture(figure: Figure, description: str) -> str:
    """A figure as an image inside the page; the description is for those who cannot see it."""
    uri = _data_uri("image/png", plots.png(figure))
    return f'<img src="{uri}" alt="{html.escape(description)}">'


def _players(sounds: Sequence[Sound], stft: StftConfig) -> str:
    """Players with their spectrograms and masks: one gain, at which none clips, and one scale."""
    signals = [sound.signal for sound in sounds]
    top = plots.peak_level(signals, stft)
    gain = 1 / max(1.0, *(float(np.abs(signal).max()) for signal in signals))
    return _gallery(*(_player(sound, stft, top, gain) for sound in sounds))


def _player(sound: Sound, stft: StftConfig, top: float, gain: float) -> str:
    flac = io.BytesIO()
    soundfile.write(flac, gain * sound.signal, stft.sample_rate, format="FLAC", subtype="PCM_16")
    uri, title = _data_uri("audio/flac", flac.getvalue()), html.escape(sound.title)
    spectrogram = plots.spectrograms({"": sound.signal}, stft, top)
    fragments = [
        f'<article class="sound">\n<h3>{title}</h3>',
        f'<audio controls preload="metadata" src="{uri}" aria-label="{title}"></audio>',
        _paragraph(sound.note),
        _picture(spectrogram, f"spectrogram: {sound.title}"),
    ]
    if sound.mask is not None:
        drawn = plots.mask(sound.mask, len(sound.signal), stft)
        fragments.append(_picture(drawn, f"mask: {sound.title}"))
    return "\n".join([*fragments, "</article>"])


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

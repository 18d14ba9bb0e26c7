import io
import json
import os
import shutil
import subprocess
import urllib.request
from html.parser import HTMLParser

import launching
import numpy as np
import pytest
import soundfile

from blsh_jax import corpora, evaluation
from blsh_jax.config import StftConfig
from blsh_jax.corpora import audio
from blsh_jax.evaluation import plots, result_page
from blsh_jax.evaluation.result_page import Example, Sound

RATE = 16_000
STFT = StftConfig()
# Opens the page in a frame of some width, and writes what it finds there as its own text.
HARNESS = """<iframe src="report.html" style="width: {width}px; height: 900px"></iframe><script>
const played = audio => new Promise((done, fail) => {{
  audio.onerror = () => fail(audio.error.message);
  audio.onloadedmetadata = () => done(audio.duration);
  if (audio.readyState > 0) done(audio.duration);
}});
onload = async () => {{
  const page = document.querySelector("iframe").contentDocument;
  const drawn = image => image.complete && image.naturalWidth > 50 && image.width > 250;
  document.body.textContent = JSON.stringify({{
    seconds: await Promise.all([...page.querySelectorAll("audio")].map(played)),
    drawn: [...page.images].map(drawn),
    width: page.documentElement.scrollWidth,
  }});
}};
</script>"""


class Elements(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def named(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]

    def sounds(self):
        """The signals that the page plays."""
        sources = [tag["src"] for tag in self.named("audio")]
        assert all(source.startswith("data:audio/flac;base64,") for source in sources)
        read = [soundfile.read(io.BytesIO(content(source))) for source in sources]
        assert all(rate == RATE for _, rate in read)
        return [signal for signal, _ in read]


def content(uri):
    """What a data URI holds."""
    with urllib.request.urlopen(uri) as opened:
        return opened.read()


@pytest.fixture(scope="module")
def page(trained, synthetic, tmp_path_factory):
    """A page of real results at a small size, and the rows behind it."""
    mixtures = corpora.make_mixtures(*synthetic, 0.0, 0, "closed", 0.5, max_mixtures=4)
    systems = evaluation.make_systems(trained[0], ("noisy", "lsh", "blsh", "ibm"), (10, 50))
    rows = evaluation.evaluate(systems, mixtures)
    shown = result_page.examples(systems[:3] + systems[-1:], mixtures, STFT)
    path = tmp_path_factory.mktemp("page") / "report.html"
    result_page.write(path, "A <title> & more", "<script>", rows, shown, trained[0])
    return path, rows, shown, mixtures


def test_the_page_holds_everything_it_shows(page):
    path, rows, _, _ = page
    elements = Elements(path.read_text(encoding="utf-8"))
    assert elements.open == []
    assert not elements.named("script", "iframe", "object", "video")
    images = elements.named("img")
    assert all(content(image["src"]).startswith(b"\x89PNG") for image in images)
    assert sum("spectrogram" in image["alt"] for image in images) == len(elements.named("audio"))
    assert all(tag["href"] == "data:," for tag in elements.named("link"))
    assert all(tag["aria-label"] for tag in elements.named("audio"))
    text = "".join(elements.text)
    assert "url(" not in text and "@import" not in text
    assert "A <title> & more" in text and "<script>" in text
    for row in rows:
        assert f"{row['sdr']:.2f}" in text


def test_sounds_come_back_from_the_page(page):
    path, _, shown, mixtures = page
    found = Elements(path.read_text()).sounds()
    assert len(found) == sum(len(example.sounds) for example in shown) == 10
    peaks = [max(np.abs(sound.signal).max() for sound in example.sounds) for example in shown]
    sounds = [
        sound.signal / max(1, peak)
        for example, peak in zip(shown, peaks, strict=True)
        for sound in example.sounds
    ]
    for signal, expected in zip(found, sounds, strict=True):
        np.testing.assert_allclose(signal, expected, atol=2**-14)
    titles = [sound.title for sound in shown[0].sounds]
    assert titles == [
        "unprocessed mixture", "LSH, random projections, 10 bits",
        "LSH, random projections, 50 bits", "ideal binary mask", "clean",
    ]  # fmt: skip
    by_key = {mixture.key.replace("+", " in "): mixture for mixture in mixtures}
    for example in shown:
        mixture = by_key[example.title]
        np.testing.assert_array_equal(example.sounds[-1].signal, mixture.speech)
        np.testing.assert_allclose(example.sounds[0].signal, mixture.mixture, atol=1e-6)
    assert len({example.title.partition(" in ")[2] for example in shown}) == len(shown) == 2


def test_ones_own_files_are_heard_before_and_after(tmp_path, monkeypatch):
    monkeypatch.setattr(result_page, "_COMPARED_SECONDS", 1.0)
    monkeypatch.setattr(result_page, "_MOST_COMPARED", 4)
    rng, pairs = np.random.default_rng(0), []
    for number, (rate, after) in enumerate([(44_100, 44_100), (96_000, 96_000), (22_050, 24_000)]):
        for folder, length in (("in", rate), ("out", after)):
            signal = rng.uniform(-0.5, 0.5, (2, 3 * length)).astype(np.float32)
            audio.write(tmp_path / folder / f"{number} & <b>.flac", signal, length)
        pairs.append([tmp_path / folder / f"{number} & <b>.flac" for folder in ("in", "out")])
    name = os.fsdecode(b"caf\xe9.wav")
    audio.write(tmp_path / name, np.full(RATE, 0.1, np.float32), RATE)
    result_page.write_comparison(
        tmp_path / "page.html", [*pairs, (tmp_path / name, tmp_path / name)]
    )
    page = (tmp_path / "page.html").read_text()
    elements = Elements(page)
    sources = [tag["src"] for tag in elements.named("audio")]
    read = [soundfile.read(io.BytesIO(content(source))) for source in sources]
    assert [rate for _, rate in read] == [44_100] * 2 + [48_000] * 2 + [24_000] * 2 + [RATE] * 2
    assert [len(signal) / rate for signal, rate in read] == [1.0] * 8
    before, _ = audio.read(pairs[0][0])
    np.testing.assert_allclose(read[0][0], before[:44_100], atol=2**-14)
    text = "".join(elements.text)
    assert "0 & <b>.flac" in text and "4 recordings before and after" in text and "<b>" not in page
    result_page.write_comparison(tmp_path / "page.html", [(tmp_path / name, tmp_path / name)] * 5)
    assert "4 of 5 recordings" in (tmp_path / "page.html").read_text()


def test_loud_sounds_share_one_gain_and_text_is_escaped(tmp_path, trained):
    quiet, loud = 0.5 * np.ones(4000, np.float32), np.ones(4000, np.float32)
    loud[::2] = -2.0
    shown = [Example('"a" & <b>', [Sound("quiet", quiet), Sound('<b> "loud"', loud)])]
    rows = [{"method": "<b>", "num_bits": None, "sdr": 1.234, "sir": None}]
    result_page.write(tmp_path / "page.html", "Title", "Lead", rows, shown, trained[0])
    page = (tmp_path / "page.html").read_text()
    signals = Elements(page).sounds()
    np.testing.assert_allclose(signals[0], 0.25, atol=2**-15)
    np.testing.assert_allclose(signals[1], loud / 2, atol=2**-14)
    assert "<b>" not in page and Elements(page).named("audio")[1]["aria-label"] == '<b> "loud"'
    assert "<th>SDR (dB)</th><th>SIR (dB)</th>" in page
    assert "<td>&lt;b&gt;</td><td></td><td>1.23</td><td></td>" in page


@pytest.mark.parametrize("width", [1200, 380])
def test_chromium_plays_the_page(page, tmp_path, width):
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if not executable:
        pytest.skip("no chromium to open the page with")
    path, _, shown, _ = page
    harness = path.with_name("harness.html")
    harness.write_text(HARNESS.format(width=width))
    command = [executable, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr", "--dump-dom"]
    command += ["--virtual-time-budget=20000", f"--user-data-dir={tmp_path}", harness.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads("".join(Elements(run.stdout).text))
    expected = [len(sound.signal) / RATE for example in shown for sound in example.sounds]
    assert found["seconds"] == pytest.approx(expected, abs=1e-3)
    assert all(found["drawn"])
    # Nothing is wider than the screen, so nobody has to scroll sideways.
    assert found["width"] <= width
    assert "CONSOLE" not in run.stderr  # where a refused address would be named


def test_the_evaluation_writes_a_page(model_file, synthetic, tmp_path):
    for kind, loaded in zip(("speech", "noise"), synthetic, strict=True):
        for signal, recording in zip(loaded.signals[:3], loaded.recordings[:3], strict=True):
            audio.write(tmp_path / kind / f"{recording.key}.wav", signal, RATE)
    arguments = ["evaluate", f"--model={model_file}"]
    arguments += [f"--{kind}={tmp_path / kind}" for kind in ("speech", "noise")]
    arguments += ["--methods=noisy,ibm", "--max_mixtures=2"]
    arguments += [f"--output={tmp_path / 'scores.json'}", f"--report={tmp_path / 'report.html'}"]
    assert launching.run(*arguments) is None
    elements = Elements((tmp_path / "report.html").read_text())
    assert len(elements.sounds()) == 2 * 3
    text = "".join(elements.text)
    for row in json.loads((tmp_path / "scores.json").read_text())["results"]:
        assert f"{row['sdr']:.2f}" in text


def test_scores_without_codes_are_lines_and_unknown_methods_keep_their_names():
    rows = [{"method": "mine", "num_bits": None, "sdr": 3.0}]
    rows += [{"method": "lsh", "num_bits": 25, "sdr": None}]  # of silence
    rows += [{"method": "blsh", "num_bits": bits, "sdr": bits / 10} for bits in (50, 25)]
    axis = plots.sdr_over_bits(rows).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines["BLSH"] == [[25, 2.5], [50, 5.0]] and len(lines) == 2
    assert [y for _, y in lines["mine"]] == [3.0, 3.0]

import io
import json
import shutil
import urllib.request
from html.parser import HTMLParser

import launching
import numpy as np
import pytest
import soundfile
from browser import Browser
from matplotlib.figure import Figure

from blsh_jax import evaluation
from blsh_jax.config import StftConfig
from blsh_jax.corpora import audio
from blsh_jax.evaluation import plots, report, result_page
from blsh_jax.evaluation.report import Section, Sound

RATE = 16_000
STFT = StftConfig()


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


def content(uri):
    """What a data URI holds."""
    with urllib.request.urlopen(uri) as opened:
        return opened.read()


@pytest.fixture(scope="module")
def page(trained, synthetic, tmp_path_factory):
    """A page of real results at a small size, and the rows behind it."""
    from blsh_jax import corpora

    mixtures = corpora.make_mixtures(*synthetic, 0.0, 0, "closed", 0.5, max_mixtures=4)
    systems = evaluation.make_systems(trained[0], ("noisy", "lsh", "blsh", "ibm"), (10, 50))
    rows = evaluation.evaluate(systems, mixtures)
    shown = result_page.examples(systems[:3] + systems[-1:], mixtures, STFT)
    path = tmp_path_factory.mktemp("page") / "report.html"
    result_page.write(path, "A <title> & more", "The lead.", rows, shown, trained[0])
    return path, rows, shown, mixtures


def test_the_page_holds_everything_it_shows(page):
    path, rows, shown, _ = page
    elements = Elements(path.read_text(encoding="utf-8"))
    assert elements.open == []
    assert not elements.named("script", "iframe", "object", "video")
    sources = [tag["src"] for tag in elements.named("img", "audio")]
    assert len(elements.named("audio")) == sum(len(example.sounds) for example in shown) == 10
    assert all(source.startswith("data:") for source in sources)
    assert all(tag["href"] == "data:," for tag in elements.named("link"))
    assert all(tag["alt"] for tag in elements.named("img"))
    assert all(tag["aria-label"] for tag in elements.named("audio"))
    text = "".join(elements.text)
    assert "url(" not in text and "@import" not in text
    assert "A <title> & more" in text
    for row in rows:
        assert f"{row['sdr']:.2f}" in text


def test_sounds_come_back_from_the_page(page):
    path, _, shown, mixtures = page
    sources = [tag["src"] for tag in Elements(path.read_text()).named("audio")]
    peaks = [max(np.abs(sound.signal).max() for sound in example.sounds) for example in shown]
    sounds = [
        sound.signal / max(1, peak)
        for example, peak in zip(shown, peaks, strict=True)
        for sound in example.sounds
    ]
    for source, expected in zip(sources, sounds, strict=True):
        assert source.startswith("data:audio/flac;base64,")
        signal, rate = soundfile.read(io.BytesIO(content(source)))
        assert rate == RATE
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


def test_loud_sounds_share_one_gain():
    quiet, loud = 0.5 * np.ones(4000, np.float32), np.ones(4000, np.float32)
    loud[::2] = -2.0
    html = report.listening([Sound("quiet", quiet), Sound("loud", loud)], STFT)
    signals = [
        soundfile.read(io.BytesIO(content(tag["src"])))[0] for tag in Elements(html).named("audio")
    ]
    np.testing.assert_allclose(signals[0], 0.25, atol=2**-15)
    np.testing.assert_allclose(signals[1], loud / 2, atol=2**-14)


def test_pictures_are_png_and_text_is_escaped():
    html = report.picture(Figure(figsize=(1, 1)), 'a "quoted" <thing>')
    (image,) = Elements(html).named("img")
    assert image["alt"] == 'a "quoted" <thing>'
    assert content(image["src"]).startswith(b"\x89PNG")
    assert report.paragraph("<script>") == "<p>&lt;script&gt;</p>"
    table = report.table([{"a": "<b>", "b": 1.234, "c": None}], {"a": "A", "b": "B", "c": "C"})
    assert "<th>A</th><th>B</th><th>C</th>" in table
    assert "<td>&lt;b&gt;</td><td>1.23</td><td></td>" in table


def test_a_page_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    report.write(path, "Title", "Lead", [Section("Heading", [report.paragraph("text")])])
    before = path.read_text()
    with pytest.raises(ValueError):
        report.write(path, "\ud800", "not text", [])
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_chromium_plays_the_page(page, tmp_path):
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if not executable:
        pytest.skip("no chromium to open the page with")
    path, _, shown, _ = page
    durations = """Promise.all([...document.querySelectorAll("audio")].map(audio =>
        new Promise((done, fail) => {
            audio.onerror = () => fail(audio.error.message);
            if (audio.readyState > 0) done(audio.duration);
            audio.onloadedmetadata = () => done(audio.duration);
        })))"""
    expected = [len(sound.signal) / RATE for example in shown for sound in example.sounds]
    with Browser(executable, tmp_path / "profile") as browser:
        for width in (1200, 380):
            browser.open(path, width)
            assert browser.evaluate(durations) == pytest.approx(expected, abs=1e-3)
            drawn = "[...document.images].every(image => image.complete && image.naturalWidth > 50)"
            assert browser.evaluate(drawn)
            # Nothing is wider than the screen, so nobody has to scroll sideways.
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("document.images[1].getBoundingClientRect().width") > 250
            assert browser.requests() == [path.as_uri()]
            assert browser.complaints() == []


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
    assert len(elements.named("audio")) == 2 * 3
    text = "".join(elements.text)
    for row in json.loads((tmp_path / "scores.json").read_text())["results"]:
        assert f"{row['sdr']:.2f}" in text


def test_scores_without_codes_are_lines_and_unknown_methods_keep_their_names():
    rows = [{"method": "mine", "num_bits": None, "sdr": 3.0}]
    rows += [{"method": "blsh", "num_bits": bits, "sdr": bits / 10} for bits in (50, 25)]
    axis = plots.sdr_over_bits(rows).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines["BLSH"] == [[25, 2.5], [50, 5.0]]
    assert [y for _, y in lines["mine"]] == [3.0, 3.0]

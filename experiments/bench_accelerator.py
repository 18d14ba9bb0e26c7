"""Check every path on an accelerator against the CPU, and time it there.

    experiments/bench_accelerator.sh bench_accelerator.json

Search, sharded search, boosting, ferns, whole utterances and streams run on the first device that
JAX finds and, at sizes that a CPU can do, on the CPU; a row says whether both agree. Integers have
to be equal. Boosting and learned ferns follow rounding, so their errors have to be near each other.
Then each is timed at full size. The record is written after every part, and a part that fails
leaves a row with its error. --sizes=small takes a minute on any machine.
"""

import contextlib
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import blsh_jax as blsh
from blsh_jax import corpora, models, search
from blsh_jax.commands import launch
from blsh_jax.config import FernConfig, FitConfig
from blsh_jax.denoising import pipeline
from blsh_jax.denoising.stream import Stream
from blsh_jax.evaluation import records
from blsh_jax.robust import ferns
from blsh_jax.training import driver
from blsh_jax.training.blocks import AXIS
from experiments import bench_ferns, bench_train, timing

Rows = Iterator[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is done.

    Attributes:
        entries: dictionaries that are searched.
        queries: of a search.
        code_bits: L.
        frames: numbers of frames that bits are learned on.
        num_features: D of them.
        fit: how.
        samples: that ferns are learned on, of 60 features.
        ferns: how.
        utterances: that are denoised at once, of ``seconds``.
        seconds: see there.
        repeats: of what is timed by medians.
    """

    entries: tuple[int, ...] = (225_000, 2_250_000)
    queries: int = 4096
    code_bits: int = 160
    frames: tuple[int, ...] = (225_000, 2_250_000)
    num_features: int = 513
    fit: FitConfig = dataclasses.field(default_factory=FitConfig)
    samples: int = 2_000_000
    ferns: FernConfig = dataclasses.field(default_factory=lambda: FernConfig(250))
    utterances: int = 64
    seconds: int = 10
    repeats: int = 5


SIZES = {
    "full": Sizes(),
    "small": Sizes(
        entries=(3000,),
        queries=50,
        frames=(200,),
        num_features=20,
        fit=FitConfig(num_bits=3, block_size=50, fast_candidates=4, fast_steps=20),
        samples=4000,
        ferns=FernConfig(3, fern_bits=3),
        utterances=2,
        seconds=1,
        repeats=1,
    ),
}
_CHECKED = Sizes(
    entries=(20_000,),
    queries=256,
    frames=(4000,),
    fit=FitConfig(num_bits=8),
    samples=50_000,
    ferns=FernConfig(8, fern_bits=6),
    utterances=2,
    seconds=3,
)
_NEAR = 1e-3  # by which errors of what is learned may differ, as part of them
_NEAR_DB = -40.0  # what may differ in speech: a bit that rounding flips changes a mask a little


def _search(sizes: Sizes, checked: Sizes, device: jax.Device, host: jax.Device) -> Rows:
    rng = np.random.default_rng(0)
    words = -(-sizes.code_bits // 32)
    codes = lambda count: rng.integers(0, 2**32, (count, words), np.uint32)
    queries, entries = codes(checked.queries), codes(checked.entries[0])
    weights = rng.random(sizes.code_bits).astype(np.float32)
    spectra = [rng.random((len(rows), 64)).astype(np.float32) for rows in (queries, entries)]
    vectors = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in spectra]
    size = f"{len(queries)} x {len(entries)}"
    exact = lambda one, other: all(map(np.array_equal, one, other))
    nearly = lambda one, other: np.allclose(one.similarities, other.similarities, atol=1e-5)
    ways: list[tuple[str, Callable, tuple, Callable]] = [
        ("search", lambda *a: search.hamming_top_k(*a, 10), (queries, entries), exact),
        (
            "weighted search",
            lambda *a: search.weighted_hamming_top_k(*a, 10),
            (queries, entries, weights),
            exact,
        ),
        ("search by cosine", lambda *a: search.cosine_top_k(*a, 10), tuple(vectors), nearly),
    ]
    for name, function, arrays, same in ways:
        yield _compared(name, size, function, arrays, same, device, host)
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, jax.device_count()), ("queries", "dictionary"), axis_types=axes)
    whole = len(entries) // jax.device_count() * jax.device_count()
    pair = jnp.asarray(queries), jnp.asarray(entries[:whole])
    found = search.sharded_hamming_top_k(*pair, 10, mesh)
    alone = search.hamming_top_k(*pair, 10)
    yield timing.row(
        f"sharded search, {jax.device_count()} devices", size, None, None, "s", exact(found, alone)
    )
    queries = jax.device_put(codes(sizes.queries), device)
    for count in sizes.entries:
        entries = jax.device_put(codes(count), device)
        call = functools.partial(search.hamming_top_k, queries, entries, 10)
        (timed,) = timing.take_turns(sizes.repeats, call)
        rate = len(queries) * count / timed.seconds / 1e9
        size = f"{len(queries)} x {count}, {sizes.code_bits} bits"
        yield timing.row("search, timed", size, rate, None, "10⁹ pairs/s")


def _boosting(sizes: Sizes, checked: Sizes, device: jax.Device, host: jax.Device) -> Rows:
    few = _frames(checked.frames[0], sizes.num_features)
    infos, seconds = [], []
    for used in (device, host):
        with jax.default_device(used):
            begun = time.perf_counter()
            infos.append(_fit(few, checked.fit, used))
            seconds.append(time.perf_counter() - begun)
    errors = [float(info.approximation_error[-1]) for info in infos]
    same = bool(abs(errors[0] / errors[1] - 1) < _NEAR)
    size = f"{checked.fit.num_bits} bits, {len(few)} frames"
    name = "boosting, with compiling"
    yield timing.row(name, size, seconds[0], seconds[1], "s", same, errors=errors)
    for count in sizes.frames:
        frames = bench_train.enlarge(few, count, 0)
        begun = time.perf_counter()
        info = _fit(frames, sizes.fit, device)
        size = f"{sizes.fit.num_bits} bits, {count} frames, plan {info.plan}"
        yield timing.row(
            "boosting, timed",
            size,
            time.perf_counter() - begun,
            None,
            "s",
            seconds_per_bit=statistics.median(info.seconds.tolist()),
            peak_gigabytes=info.peak_bytes / 1e9,
            approximation_error=float(info.approximation_error[-1]),
        )


def _fit(frames: np.ndarray, config: FitConfig, device: jax.Device) -> blsh.FitInfo:
    automatic = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((1,), (AXIS,), axis_types=automatic, devices=[device])
    return driver.fit(frames, config, jax.random.key(0), mesh=mesh)[1]


def _frames(count: int, num_features: int) -> np.ndarray:
    """Unit vectors around a few hundred places."""
    rng = np.random.default_rng(0)
    places = rng.random((200, num_features)) ** 4
    frames = places[rng.integers(200, size=count)] * rng.random((count, num_features))
    return (frames / np.linalg.norm(frames, axis=1, keepdims=True)).astype(np.float32)


def _ferns(sizes: Sizes, checked: Sizes, device: jax.Device, host: jax.Device) -> Rows:
    few, many = bench_ferns.make_samples((checked.samples, sizes.samples), 60, 0)
    score = jax.jit(ferns.score)
    learned, losses, seconds = [], [], []
    for used in (device, host):
        with jax.default_device(used):
            *found, spent = _learned(few, checked.ferns, used)
        learned.append(found[0])
        losses.append(float(found[1][-1]))
        seconds.append(spent)
    size = f"{checked.ferns.num_ferns} ferns of {checked.ferns.fern_bits} bits, "
    size += f"{checked.samples} samples"
    same = bool(abs(losses[0] / losses[1] - 1) < _NEAR)
    yield timing.row("ferns learned", size, seconds[0], seconds[1], "s", same, losses=losses)
    arrays = learned[1], few.values
    yield _compared("ferns scored", size, score, arrays, np.array_equal, device, host)
    found, _, spent = _learned(many, sizes.ferns, device)
    size = f"{sizes.ferns.num_ferns} ferns of {sizes.ferns.fern_bits} bits, {sizes.samples} samples"
    yield timing.row("ferns learned, timed", size, spent, None, "s")
    arrays = jax.device_put((found, many.values), device)
    (timed,) = timing.take_turns(sizes.repeats, lambda: score(*arrays))
    yield timing.row("ferns scored, timed", size, timed.seconds, None, "s")


def _learned(samples: ferns.Samples, config: FernConfig, device: jax.Device):
    """Ferns, losses, and the seconds that they took once compiled."""
    arguments = jax.device_put((samples, jax.random.key(0)), device)
    known, key = arguments
    learn = jax.jit(ferns.boost, static_argnames="config").lower(known, config, key).compile()
    begun = time.perf_counter()
    learned, losses = jax.block_until_ready(learn(known, key))
    return learned, losses, time.perf_counter() - begun


def _denoising(sizes: Sizes, checked: Sizes, device: jax.Device, host: jax.Device) -> Rows:
    model = models.load_pretrained()
    stft = model.separation.stft
    noisy = _noisy(checked.utterances, checked.seconds, stft.sample_rate)
    size = f"{len(noisy)} x {checked.seconds} s"
    yield _compared("whole utterances", size, _separate, (model, noisy), _near, device, host)
    model = jax.device_put(model, device)
    whole = np.asarray(_separate(model, jax.device_put(noisy, device), pre_roll=False))
    with jax.default_device(device):
        stream, parts, taken = Stream(model, pre_roll=False), [], []
        for start in range(0, noisy.shape[1], stft.hop_length):
            begun = time.perf_counter()
            parts.append(stream.feed(noisy[0, start : start + stft.hop_length]))
            taken.append(time.perf_counter() - begun)
        streamed = np.concatenate([*parts, stream.flush()])
    milliseconds = 1e3 * statistics.median(taken)
    same = _near(streamed, whole[0, : noisy.shape[1]])
    yield timing.row("stream beside the whole, a hop", size, milliseconds, None, "ms", same)
    noisy = jax.device_put(_noisy(sizes.utterances, sizes.seconds, stft.sample_rate), device)
    (timed,) = timing.take_turns(sizes.repeats, lambda: _separate(model, noisy))
    size = f"{sizes.utterances} x {sizes.seconds} s"
    speed = sizes.utterances * sizes.seconds / timed.seconds
    yield timing.row("whole utterances, timed", size, speed, None, "times real time")


def _noisy(count: int, seconds: int, rate: int) -> np.ndarray:
    """(count, samples) mixtures of the synthetic corpus at 5 dB."""
    speech = corpora.synthetic_speech(jax.random.key(0), count, 1, seconds, rate)
    noise = corpora.synthetic_noise(jax.random.key(1), seconds, rate)
    mixtures = corpora.make_mixtures(speech, noise, 5.0, 0, "whole", max_mixtures=count)
    return np.stack([mixture.mixture for mixture in mixtures])


def _separate(model: models.Model, noisy: jax.Array, pre_roll: bool = True) -> jax.Array:
    frames = model.separation.features.pre_roll_frames if pre_roll else 0
    return pipeline.separate(noisy, model.mask_function, model.separation.stft, frames).speech


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two signals differ by less than ``_NEAR_DB``."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    different = np.sum(np.square(one - other)) / np.sum(np.square(other))
    return bool(10 * np.log10(different + 1e-30) < _NEAR_DB)


def _compared(
    name: str,
    size: str,
    function: Callable,
    arrays: tuple,
    same: Callable[[Any, Any], bool],
    device: jax.Device,
    host: jax.Device,
) -> dict[str, Any]:
    """A row: seconds on the device and on the CPU, and whether the results are the same."""
    timed: list[timing.Timing] = []
    for used in (device, host):
        placed = jax.device_put(arrays, used)
        with jax.default_device(used):
            timed += timing.take_turns(1, functools.partial(function, *placed))
    results = [jax.tree.map(np.asarray, found.result) for found in timed]
    ours, reference = (found.seconds for found in timed)
    return timing.row(name, size, ours, reference, "s", bool(same(*results)))


_PARTS: dict[str, Callable[[Sizes, Sizes, jax.Device, jax.Device], Rows]] = {
    "search": _search,
    "denoising": _denoising,
    "ferns": _ferns,
    "boosting": _boosting,  # the longest is last
}


def _define_flags() -> None:
    launch.define_output("Record to write (.json).")
    launch.define_choices("parts", list(_PARTS), "Parts to run.")
    flags.DEFINE_enum("sizes", "full", list(SIZES), "Small sizes are for a try on any machine.")


def main() -> None:
    """Flags, library, record."""
    values = flags.FLAGS
    sizes = SIZES[values.sizes]
    checked = sizes if values.sizes == "small" else _CHECKED
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    rows: list[dict[str, Any]] = []
    settings = {"parts": values.parts, "sizes": dataclasses.asdict(sizes)}
    begun = time.perf_counter()
    for part in values.parts:
        with _failures_in(rows, part):
            for row in _PARTS[part](sizes, checked, device, host):
                rows.append(row)
                print(f"{time.perf_counter() - begun:6.1f} s  {row['name']}", flush=True)
                records.write_json(values.output, records.record(rows, settings))
    launch.write(rows, timing.COLUMNS, settings, seconds=time.perf_counter() - begun)
    wrong = [row["name"] for row in rows if row["agrees"] is False]
    if wrong:
        sys.exit(f"not as on the CPU: {', '.join(wrong)}")


@contextlib.contextmanager
def _failures_in(rows: list[dict[str, Any]], part: str) -> Iterator[None]:
    """What goes wrong in a part is a row, and the next part still runs."""
    try:
        yield
    except Exception as error:  # whatever a device that nobody tried may raise
        rows.append(timing.row(part, "", None, None, "", False, error=f"{error!r:.2000}"))


if __name__ == "__main__":
    launch.run(_define_flags, main)

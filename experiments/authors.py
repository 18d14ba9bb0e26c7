r"""The paper's claims again, trained as its authors train: what makes each of them true or false.

    python -m experiments.authors --speech DIR --noise DIR --open_speech DIR --open_noise DIR \
        --steady_noise DIR --lively_noise DIR --voices DIR --output authors.json [--cache DIR]

Starts from the published mode with the cosine target and changes one thing at a time: the target,
the slope of the pair loss, the spelling of the pair weights, the scale of the features, how far a
bit is trained, the voices, the noise of the open set. Tries the two extensions that the paper names
beside them: similarity weighted by beta in the search, and projections over several frames.
--steady_noise, --lively_noise (open sets of their own) and --voices (other training speech) may be
left out; --only=cosine,RBF tries some. Takes an hour and a half of one CPU core in all; an
interrupted run goes on with --cache. Draws the extensions beside the record (.png).

Means are over mixtures and seeds, unweighted, with standard errors over either.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array

from blsh_jax import config as configs
from blsh_jax import corpora, search
from blsh_jax.commands import launch
from blsh_jax.config import FeatureConfig, FitConfig, StftConfig, TrainConfig
from blsh_jax.corpora import Loaded, Mixtures
from blsh_jax.evaluation import Measure, metrics, random_hasher
from blsh_jax.paper import boosting, codes, masks, similarity, spectra
from blsh_jax.paper.codes import Hasher
from blsh_jax.paper.spectra import SpectralFeatures
from blsh_jax.robust.augmentation import AugmentedMixtures
from blsh_jax.search import packing
from blsh_jax.training import FrameSample
from experiments import denoisers, pictures
from experiments import protocol as protocols
from experiments.cache import Cache, fingerprint
from experiments.protocol import Protocol
from experiments.workbench import MEL, Workbench

LENGTHS = (5, 10, 25, 50, 100, 150)
_SHORT, _LONG = 25, 125  # bits of BLSH and of LSH in claim 5
_PARTS = (1.0, 0.1)  # of a dictionary of 10 % of the training frames: 10 % and 1 %
_COLUMNS = ["trial", "set", "part", "method", "num_bits", "sdr"]
_BATCH = 8
# Weights of five frames side by side; those of weight 0 are left out.
_WINDOWS = {
    "frame": (0.0, 0.0, 1.0, 0.0, 0.0),
    "3 frames": (0.0, 1.0, 1.0, 1.0, 0.0),
    "3 frames windowed": (0.0, 0.5, 1.0, 0.5, 0.0),
    "5 frames": (1.0, 1.0, 1.0, 1.0, 1.0),
    "5 frames windowed": (0.25, 0.75, 1.0, 0.75, 0.25),
}
_CONTEXT = FeatureConfig(context=5)


# What pairs are weighed by, of the error of a bit: in the paper, and in the authors' programs.
_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "paper": boosting.beta,
    # ln((1 - eps) / eps), twice eq. 6.
    "journal": lambda error: 2 * boosting.beta(error),
    # Errors of codes from -1 to 1 are four times as large; half of them go into eq. 6.
    "bipolar journal": lambda error: 4 * boosting.beta(2 * error),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One way to learn bits and to use them.

    Attributes:
        fit: what is changed in the fit.
        spelling: of the pair weights.
        view: what is hashed: ``frame`` or several, ``mel``, ``centred``, ``unit variance``.
        weighted: search by similarity weighted by beta.
        voices: train on the other speech.
        seeds: how often, each with frames to learn on, starts, and projections of LSH of its own.
        listening: SI-SDR, STOI and PESQ of the longest code, too.
    """

    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    spelling: str = "paper"
    view: str = "frame"
    weighted: bool = False
    voices: bool = False
    seeds: int = 1
    listening: bool = False


_RBF = {"target": "rbf", "sigma2": 0.9}
_NARROW = {"target": "rbf", "sigma2": 0.3}
_FAR = {"learning_rate": 1e-3}
TRIALS = {
    "cosine": Trial(seeds=3, listening=True),
    "RBF": Trial(_RBF, seeds=3),
    "cosine: rate x 10": Trial(_FAR),
    "RBF: rate x 10": Trial(_RBF | _FAR),
    "RBF: 0.3 wide": Trial(_NARROW),
    "RBF: 0.3 wide and rate x 10": Trial(_NARROW | _FAR),
    "cosine: slope of the line": Trial({"slope": "line"}),
    "RBF: slope of the line": Trial(_RBF | {"slope": "line"}),
    "RBF: spelling of the journal": Trial(_RBF, "journal"),
    "RBF: bipolar spelling of the journal": Trial(_RBF, "bipolar journal"),
    "cosine: features centred": Trial(view="centred"),
    "cosine: features of unit variance": Trial(view="unit variance"),
    "cosine: weighted by beta": Trial(weighted=True),
    "cosine: other voices": Trial(voices=True),
    "cosine: 3 frames": Trial(view="3 frames"),
    "cosine: 3 frames windowed": Trial(view="3 frames windowed"),
    "RBF: cross-entropy": Trial(_RBF | {"metric": "cross_entropy"}, listening=True),
    "RBF: mel features": Trial(_RBF, view="mel", listening=True),
    "cosine: 5 frames windowed": Trial(view="5 frames windowed"),
    "cosine: 5 frames": Trial(view="5 frames"),
    "RBF: 60 passes a bit": Trial(_RBF | {"min_epochs": 60, "max_epochs": 60}, listening=True),
    "RBF: 300 bits": Trial(_RBF | {"num_bits": 300}, listening=True),
}


class Test(NamedTuple):
    """A test set, and what every trial needs of it.

    Attributes:
        batches: speech (U, n), noise (U, n), lengths (U,), spectra of the mixture (U, T, F).
        rows: (Q, 5 F) five frames side by side, of all batches.
    """

    batches: list[tuple[np.ndarray, np.ndarray, np.ndarray, Array]]
    rows: Array


class Bench(NamedTuple):
    """What all trials on one speech share.

    Attributes:
        sample: training frames, five side by side, and their masks.
        tests: by name.
        settings: what both depend on.
        config: the transform, the search, and the fit before it is changed.
        cache: keeps scores.
    """

    sample: FrameSample
    tests: dict[str, Test]
    settings: dict[str, Any]
    config: TrainConfig
    cache: Cache


class Space(NamedTuple):
    """What a trial hashes.

    Attributes:
        view: rows (..., 5 F) to what is hashed, (..., D).
        frames: (N, D) of the dictionary.
        target: (N, D') those whose similarity is the target.
    """

    view: Callable[[Array], Array]
    frames: Array
    target: Array


class Curve(NamedTuple):
    """What is scored.

    Attributes:
        method: ``blsh``, ``lsh`` or ``knn``.
        hasher: its hash functions; None compares what is shown itself.
        lengths: of codes.
        weighted: by the betas of the hasher.
    """

    method: str
    hasher: Hasher | None
    lengths: tuple[int | None, ...]
    weighted: bool = False


Row = dict[str, Any]
Run = dict[str, Any]
"""What ``run`` gives."""


def bench(protocol: Protocol, config: TrainConfig, cache: Cache) -> Bench:
    """What all trials on one speech share.

    Args:
        protocol: the mixtures.
        config: the transform, the dictionary, the seed, and the fit before it is changed.
        cache: keeps frames and scores.
    """
    separation = dataclasses.replace(config.separation, features=_CONTEXT)
    wide = Workbench(protocol, dataclasses.replace(config, separation=separation), cache)
    tests = {name: _test(made, separation.stft) for name, made in protocol.tests.items()}
    prints = {name: fingerprint(made) for name, made in protocol.tests.items()}
    settings = wide.settings(tests=prints, num_neighbors=separation.num_neighbors)
    return Bench(wide.sample, tests, settings, config, cache)


def run(of: Bench, trial: Trial, seed: int, measures: Mapping[str, Measure]) -> Run:
    """A trial with one seed.

    Args:
        of: frames and test sets.
        trial: what is tried.
        seed: of the frames that bits are learned on, of their starts, and of LSH.
        measures: other scores than those of BSS_Eval, for trials that have them.

    Returns:
        ``rows``: of a set, part of the dictionary, method and length the SDR of every mixture, in
        dB; ``bits``: how they came out; ``listening``: rows of the other scores, means.
    """
    fit = dataclasses.replace(of.config.fit, **trial.fit)
    lengths = (*(n for n in LENGTHS if n < fit.num_bits), fit.num_bits)
    made_of = functools.cache(
        lambda view: _space(view, of.sample.frames, of.config.separation.stft)
    )
    space = functools.partial(made_of, trial.view)
    shared = of.settings | {"view": trial.view, "seed": seed}
    learned = {"fit": configs.to_dict(fit), "spelling": trial.spelling}
    learned |= shared | {"max_fit_frames": of.config.max_fit_frames}
    learn_once = functools.cache(lambda: learn(of.config, space(), fit, trial.spelling, seed))

    def blsh() -> dict[str, Any]:
        hasher, bits = learn_once()
        curve = Curve("blsh", hasher, lengths, trial.weighted)
        return {"bits": bits, "rows": _scores(of, space(), curve)}

    def lsh() -> list[Row]:
        hasher = random_hasher(seed, max(_LONG, lengths[-1]), space().frames)
        wanted = tuple(sorted({*lengths, _LONG}))
        return _scores(of, space(), Curve("lsh", hasher, wanted))

    def knn() -> list[Row]:
        return _scores(of, made_of("frame"), Curve("knn", None, (None,)))

    def listening() -> list[Row]:
        curve, rows = Curve("blsh", learn_once()[0], lengths[-1:]), []
        for name in ("closed", "open"):
            test = of.tests[name]
            found = _masks(of, space(), space().view(test.rows), curve, lengths[-1])
            place = {"set": name, "method": "blsh", "num_bits": lengths[-1]}
            rows.append(place | _listened(test, found, every, of.config.separation.stft))
        return rows

    made = of.cache.record("authors_blsh", learned | {"weighted": trial.weighted}, blsh)
    made["rows"] += of.cache.record("authors_lsh", shared | {"lengths": lengths}, lsh)
    made["rows"] += of.cache.record("authors_knn", of.settings, knn)
    every = dict(measures) | {"si_sdr": lambda speech, found: float(metrics.si_sdr(speech, found))}
    if trial.listening and measures and seed == 0:
        described = learned | {"measures": sorted(every)}
        made["listening"] = of.cache.record("authors_listening", described, listening)
    return made


def learn(
    config: TrainConfig, space: Space, fit: FitConfig, spelling: str, seed: int
) -> tuple[Hasher, Row]:
    """Hash functions.

    Args:
        config: how many frames they are learned on.
        space: the frames.
        fit: how.
        spelling: of the pair weights.
        seed: of the choice of frames and of the starts.

    Returns:
        The hasher, its betas what pairs were weighed by, and how its bits came out.

    Raises:
        ValueError: a bit has no weight, its error being above what the spelling bears.
    """
    size = fit.block_size
    count = min(config.max_fit_frames, len(space.frames)) // size
    order = np.random.default_rng([config.seed, seed]).permutation(len(space.frames))
    blocks = lambda frames: frames[order[: count * size]].reshape(count, size, -1)
    compare = lambda rows: similarity.self_similarity(rows, fit.target, fit.sigma2)
    ssms = jax.lax.map(compare, blocks(space.target))
    hasher, infos = _boost(blocks(space.frames), ssms, jax.random.key(seed), fit, spelling)
    if not np.isfinite(hasher.betas).all():
        first = int(np.flatnonzero(~np.isfinite(hasher.betas))[0])
        raise ValueError(f"bit {first + 1} has no weight: its error is {infos.epsilon[first]:.3f}")
    epsilon = np.asarray(infos.epsilon)
    return hasher, {
        "balance": float(np.abs(infos.balance).mean()),
        "steps": float(np.mean(infos.steps)),
        "epsilon": [float(epsilon[0]), float(epsilon[-1])],
    }


@functools.partial(jax.jit, static_argnames=("fit", "spelling"))
def _boost(
    frames: Array, ssms: Array, key: Array, fit: FitConfig, spelling: str
) -> tuple[Hasher, boosting.BitInfo]:
    """``boosting.boost`` with other weights of bits."""

    def one(state: boosting.State, _: None) -> tuple[boosting.State, boosting.BitInfo]:
        state, info = boosting.step(state, frames, ssms, fit)
        hasher, last = state.bits.hasher, state.bits.learned - 1
        weight = _WEIGHTS[spelling](jnp.asarray(info.epsilon))
        hasher = hasher._replace(betas=hasher.betas.at[last].set(weight))
        return state._replace(bits=state.bits._replace(hasher=hasher)), info

    start = boosting.init(frames.shape[-1], fit, key)
    state, infos = jax.lax.scan(one, start, None, fit.num_bits)
    return state.bits.hasher.prefix(fit.num_bits), infos


def _space(view: str, rows: np.ndarray, stft: StftConfig) -> Space:
    """What is hashed of rows (N, 5 F) under a view."""
    window = np.array(_WINDOWS.get(view, _WINDOWS["frame"]), np.float32)
    filters = jnp.asarray(spectra.mel_filters(MEL.num_mels, stft), jnp.float32)

    @jax.jit
    def frames(rows: Array) -> Array:
        beside = rows.reshape(*rows.shape[:-1], len(window), -1)
        beside = jnp.einsum("...kf,k->...kf", beside, jnp.asarray(window))[..., window > 0, :]
        unit = spectra.unit_norm(beside.reshape(*rows.shape[:-1], -1))
        return spectra.unit_norm(unit @ filters) if view == "mel" else unit

    shown = jax.lax.map(frames, jnp.asarray(rows), batch_size=4096)
    if view not in ("centred", "unit variance"):
        return Space(frames, shown, shown)
    mean = shown.mean(0)
    scale = shown.std(0) + 1e-6 if view == "unit variance" else jnp.ones_like(mean)
    scaled = lambda rows: (rows - mean[None]) / scale[None]
    return Space(lambda rows: scaled(frames(rows)), scaled(shown), shown)


def _test(mixtures: Mixtures, stft: StftConfig) -> Test:
    batches, rows = [], []
    function = SpectralFeatures(_CONTEXT, stft)
    for batch in corpora.batches(mixtures, min(_BATCH, len(mixtures))):
        spectrum = spectra.stft(jnp.asarray(batch.mixture), stft)
        beside = spectra.features(function, spectrum)
        batches.append((batch.speech, batch.noise, batch.lengths, spectrum))
        rows.append(beside.reshape(-1, beside.shape[-1]))
    return Test(batches, jnp.concatenate(rows))


def _scores(of: Bench, space: Space, curve: Curve) -> list[Row]:
    """A row of every set, part of the dictionary and length."""
    rows = []
    for name, test in of.tests.items():
        queries = space.view(test.rows)
        for part, length in itertools.product(_PARTS, curve.lengths):
            found = _masks(of, space, queries, curve, length, part)
            place = {"set": name, "part": part, "method": curve.method, "num_bits": length}
            rows.append(place | {"sdr": _sdr(test, found, of.config.separation.stft)})
    return rows


def _masks(
    of: Bench, space: Space, queries: Array, curve: Curve, length: int | None, part: float = 1.0
) -> Array:
    """Masks (Q, F) of queries (Q, D), from a part of the dictionary."""
    kept, separation = slice(0, round(part * len(space.frames))), of.config.separation
    frames, packed = space.frames[kept], jnp.asarray(of.sample.masks[kept])
    sizes = separation.num_neighbors, separation.stft.num_bins
    if curve.hasher is None:
        nearest = search.cosine_top_k(queries, frames, sizes[0]).indices
        return _mean(packed, nearest, sizes[1])
    given = curve.hasher, queries, frames, packed, jnp.int32(length)
    return _hashed(*given, curve.weighted, *sizes)


_mean = jax.jit(masks.average_masks, static_argnames="num_bins")


@functools.partial(jax.jit, static_argnames=("weighted", "k", "num_bins"))
def _hashed(
    hasher: Hasher,
    queries: Array,
    frames: Array,
    packed: Array,
    length: Array,
    weighted: bool,
    k: int,
    num_bins: int,
) -> Array:
    # Later bits are alike, not left out: one shape, hence one compilation, of all lengths.
    used = jnp.arange(hasher.num_bits)[None] < length
    hashed = lambda rows: packing.pack_bits(
        used & (codes.project(rows, hasher.projections, hasher.biases) >= 0)
    )
    coded = hashed(queries), hashed(frames)
    if weighted:
        weights = jnp.where(used[0], hasher.betas, jnp.zeros_like(hasher.betas))
        nearest = search.weighted_hamming_top_k(*coded, weights, k).indices
    else:
        nearest = search.hamming_top_k(*coded, k).indices
    return masks.average_masks(packed, nearest, num_bins)


def _estimates(test: Test, estimated: Array, stft: StftConfig) -> Iterable[tuple[np.ndarray, ...]]:
    """Speech, noise, estimate (U, n) and lengths (U,) of batches, those that only fill left out."""
    first = 0
    for speech, noise, lengths, spectrum in test.batches:
        count, size = np.count_nonzero(lengths), spectrum.shape[0] * spectrum.shape[1]
        mask = estimated[first : first + size].reshape(spectrum.shape)
        found = np.asarray(_inverse(mask, spectrum, speech.shape[-1], stft))
        yield speech[:count], noise[:count], found[:count], lengths[:count]
        first += size


@functools.partial(jax.jit, static_argnames=("num_samples", "stft"))
def _inverse(mask: Array, spectrum: Array, num_samples: int, stft: StftConfig) -> Array:
    return spectra.istft(masks.apply_mask(mask, spectrum), num_samples, stft)


def _sdr(test: Test, estimated: Array, stft: StftConfig) -> list[float]:
    """SDR of every mixture, in dB."""
    scores: list[float] = []
    for speech, noise, found, lengths in _estimates(test, estimated, stft):
        reference, estimate = (np.stack([first, noise], 1) for first in (speech, found))
        scores += metrics.bss_eval(reference, estimate, lengths).sdr[:, 0].round(3).tolist()
    return scores


def _listened(
    test: Test, estimated: Array, measures: Mapping[str, Measure], stft: StftConfig
) -> Row:
    """Means of other measures."""
    scores = [
        [measure(s[:n], e[:n]) for measure in measures.values()]
        for speech, _, found, lengths in _estimates(test, estimated, stft)
        for s, e, n in zip(speech, found, lengths, strict=True)
    ]
    return dict(zip(measures, np.mean(scores, axis=0).tolist(), strict=True))


def differences(trial: str, runs: list[Run], base: list[Run]) -> list[Row]:
    """What the claims are about, in dB, with standard errors.

    Args:
        trial: its name.
        runs: of ``run``, one of each seed.
        base: those of the trial that it changes, on the same mixtures; may be fewer, or none.

    Returns:
        Rows of ``claim``: 1, BLSH above LSH; 2, BLSH with 1 % of the frames above LSH with 10 %;
        4, BLSH above KNN; 5, BLSH at 25 bits above LSH at 125; 0, BLSH above that of ``base``.
        ``se_seeds`` is None for one seed.
    """
    of_runs, of_base = map(_by_system, runs), map(_by_system, base)
    ours, theirs = list(of_runs), list(of_base)
    rows = []
    for name, part, method, length in ours[0]:
        if method != "blsh":
            continue
        rivals = {1: (name, part, "lsh", length), 4: (name, part, "knn", None)}
        if part < 1:
            rivals[2] = (name, 1.0, "lsh", length)
        if length == _SHORT:
            rivals[5] = (name, part, "lsh", _LONG)
        key = name, part, method, length
        pairs = {claim: [(one[key], one[rival]) for one in ours] for claim, rival in rivals.items()}
        if theirs and all(key in one for one in theirs):
            pairs[0] = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=False)]
        for claim, both in sorted(pairs.items()):
            gains = np.stack([above - below for above, below in both])
            place = {"trial": trial, "set": name, "part": part, "claim": claim, "num_bits": length}
            rows.append(place | _with_errors(gains, "gain"))
    return rows


def _by_system(one: Run) -> dict[tuple[str, float, str, int | None], np.ndarray]:
    """SDR (mixtures,) by set, part of the dictionary, method and bits."""
    return {
        (r["set"], r["part"], r["method"], r["num_bits"]): np.array(r["sdr"]) for r in one["rows"]
    }


def means(trial: str, runs: list[Run]) -> list[Row]:
    """SDR of every system in dB, with standard errors; arguments as of ``differences``."""
    return [
        {"trial": trial}
        | {name: same[0][name] for name in ("set", "part", "method", "num_bits")}
        | _with_errors(np.array([row["sdr"] for row in same]), "sdr")
        for same in zip(*(one["rows"] for one in runs), strict=True)
    ]


def _with_errors(values: np.ndarray, name: str) -> Row:
    """The mean of values (seeds, mixtures), and its standard errors over either."""
    over = lambda of: float(of.std(ddof=1) / np.sqrt(len(of))) if len(of) > 1 else None
    found = {name: float(values.mean()), "se_mixtures": over(values.mean(0))}
    return found | {"se_seeds": over(values.mean(1))}


def _define_flags() -> None:
    protocols.define_flags()
    launch.define_output("Record to write (.json); the picture goes beside it (.png).")
    launch.define_train_config()
    flags.DEFINE_string("steady_noise", None, "Folder of low and steady noise, as --open_noise.")
    flags.DEFINE_string("lively_noise", None, "Folder of babble and music, as --open_noise.")
    flags.DEFINE_string("voices", None, "Folder of other training speech, as --speech.")
    flags.DEFINE_integer("max_training_mixtures", 640, "Mixtures that frames are drawn from.")
    flags.DEFINE_bool("listening", True, "SI-SDR, STOI and PESQ, which need '.[tools]'.")
    launch.define_choices("only", list(TRIALS), "Trials, by name.")
    flags.FLAGS.set_default("fit.mode", "published")
    flags.FLAGS.set_default("fit.target", "cosine")
    flags.FLAGS.set_default("fit.block_size", 500)
    flags.FLAGS.set_default("max_fit_frames", 6000)
    flags.FLAGS.set_default("max_mixtures", 48)


def main() -> None:
    """Flags, library, record, picture."""
    values, config = flags.FLAGS, launch.train_config()
    protocol = _protocol(config)
    cache = Cache(values.cache)
    measures = denoisers.measures() if values.listening else {}
    benches = {False: bench(protocol, config, cache)}
    if values.voices:
        benches[True] = bench(_with_voices(protocol, config), config, cache)
    results, gains, bits, heard = [], [], [], []
    bases: dict[str, list[Run]] = {}
    for name in values.only:
        trial = TRIALS[name]
        if trial.voices not in benches:
            continue
        runs = []
        for seed in range(trial.seeds):
            runs.append(run(benches[trial.voices], trial, seed, measures))
            print(f"{name}, seed {seed}: {runs[-1]['bits']}", flush=True)
        results += means(name, runs)
        base = name.partition(":")[0]
        gains += differences(name, runs, [] if trial.voices else bases.get(base, []))
        bases.setdefault(base, runs)
        bits += [{"trial": name, "seed": seed} | one["bits"] for seed, one in enumerate(runs)]
        heard += [{"trial": name} | row for one in runs for row in one.get("listening", ())]
    more = {"gains": gains, "bits": bits, "listening": heard}
    record = protocols.write(results, _COLUMNS, config, protocol, more, voices=bool(values.voices))
    pictures.save(pictures.extensions(record), record, Path(values.output).with_suffix(".png"))


def _protocol(config: TrainConfig) -> Protocol:
    """The protocol of the flags, of fewer training mixtures, and with further open sets."""
    protocol, count = protocols.from_flags(config), flags.FLAGS.max_mixtures
    tests, sources = dict(protocol.tests), dict(protocol.sources)
    for name in ("steady", "lively"):
        if getattr(flags.FLAGS, f"{name}_noise") is None:
            continue
        if "open" not in tests:
            raise ValueError(f"--{name}_noise: it needs an open set, for its speech")
        speech, (noise,) = tests["open"].speech, launch.recordings(config, f"{name}_noise")
        seed = tests["open"].seed
        tests[name] = corpora.make_mixtures(speech, noise, config.snr_db, seed, max_mixtures=count)
        sources[f"{name}_noise"] = [recording.key for recording in noise.recordings]
    return Protocol(_some(protocol.train, protocol.train.speech), tests, sources)


def _with_voices(protocol: Protocol, config: TrainConfig) -> Protocol:
    """The same trained on the other speech, which makes the closed set, too."""
    (speech,) = launch.recordings(config, "voices")
    closed = _some(protocol.tests["closed"], speech, flags.FLAGS.max_mixtures)
    return Protocol(_some(protocol.train, speech), protocol.tests | {"closed": closed}, {})


def _some(mixtures: Mixtures | AugmentedMixtures, speech: Loaded, count: int = 0) -> Mixtures:
    """A choice of mixtures made as others are, of the same or of other speech."""
    if not isinstance(mixtures, Mixtures):
        raise ValueError("num_mixtures: the authors mix utterances with noises as they are")
    made = mixtures.noise, mixtures.snr_db, mixtures.seed, mixtures.part, mixtures.held_back
    return corpora.make_mixtures(speech, *made, count or flags.FLAGS.max_training_mixtures)


if __name__ == "__main__":
    launch.run(_define_flags, main)

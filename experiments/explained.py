"""What the pictures of docs/hashing.md show, made from the synthetic corpus and a few points.

Everything is small enough to be made in less than a minute, and the same every time.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import corpora, search, training
from blsh_jax.config import FitConfig, TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.paper import boosting, codes, similarity
from blsh_jax.search.packing import unpack_bits

CONFIG = TrainConfig(dictionary_fraction=1.0)
# Fewer candidates and steps than usual, which only saves time.
_FIT = FitConfig(num_bits=100, target="cosine", fast_candidates=16, fast_steps=100)
_SHOWN = 3  # the mixture whose frames are compared: speech and a keyboard
_NUM_NEIGHBORS = 10
_NUM_ROWS = 60  # of the dictionary that are shown
_NUM_DIRECTIONS = 2  # that a line of AdaBoost is chosen from: few make a weak learner


class LookUp(NamedTuple):
    """A frame that is looked up, and a part of the dictionary, its neighbours among it.

    Attributes:
        query: (F,) magnitudes, of norm 1.
        ideal: (F,) bool, its ideal binary mask, which the look-up does not know.
        frames: (R, F) magnitudes of rows of the dictionary.
        masks: (R, F) bool, theirs.
        cosines: (R,) similarity of each row to the query.
        nearest: (K,) the rows that are the nearest frames of the whole dictionary.
        size: frames of the whole dictionary.
    """

    query: np.ndarray
    ideal: np.ndarray
    frames: np.ndarray
    masks: np.ndarray
    cosines: np.ndarray
    nearest: np.ndarray
    size: int


class Codes(NamedTuple):
    """The same frame and the whole dictionary, in random bits.

    Attributes:
        cosines: (N,) similarity of each dictionary frame to the query.
        agreeing: number of bits L to (N,) bits of L that agree.
        query: (L',) bool, the shortest code of the query.
        near: (L',) bool, that of its nearest frame by cosine.
        far: (L',) bool, that of the frame in the middle of the order.
    """

    cosines: np.ndarray
    agreeing: dict[int, np.ndarray]
    query: np.ndarray
    near: np.ndarray
    far: np.ndarray


class Ensemble(NamedTuple):
    """Lines h(x) = sgn(p · x - t) that vote with weights.

    Attributes:
        directions: (M, 2) p.
        thresholds: (M,) t.
        betas: (M,) weights.
    """

    directions: np.ndarray
    thresholds: np.ndarray
    betas: np.ndarray

    def votes(self, points: np.ndarray) -> np.ndarray:
        """Sum of beta h(x) of points (..., 2), positive where the class is +1."""
        above = points @ self.directions.T >= self.thresholds
        return np.where(above, 1.0, -1.0) @ self.betas

    def first(self, count: int) -> "Ensemble":
        """Its first lines."""
        return Ensemble(*(array[:count] for array in self))


class Learned(NamedTuple):
    """The frames of one mixture in their order, and bits that are learned on them.

    Attributes:
        target: (T, T) cosine similarity of the frames.
        bits: (T, L) bool.
        betas: (L,) weights of the bits.
    """

    target: np.ndarray
    bits: np.ndarray
    betas: np.ndarray

    def so_far(self, count: int) -> np.ndarray:
        """(T, T) similarity of the codes of ``count`` bits (eq. 3)."""
        bits, betas = jnp.asarray(self.bits[:, :count]), jnp.asarray(self.betas[:count])
        return np.asarray(codes.self_similarity(bits, betas))

    def weights(self, count: int) -> np.ndarray:
        """(T, T) weights that the bit after ``count`` bits is learned with (eq. 4)."""
        total = jnp.sum(self.betas[:count])
        agreement = (2 * jnp.asarray(self.so_far(count)) - 1) * total
        return np.asarray(boosting.pair_weights(jnp.asarray(self.target), agreement, total))


@functools.cache
def _mixtures() -> tuple[Mixtures, Mixtures]:
    """Training mixtures, and those of other utterances of the same speakers."""
    speech = corpora.synthetic_speech(jax.random.key(0), 4, 3)
    noise = corpora.synthetic_noise(jax.random.key(1))
    last = np.arange(len(speech)) % 3 == 2
    parts = (speech.some(np.flatnonzero(chosen)) for chosen in (~last, last))
    known, other = (corpora.make_mixtures(part, noise, CONFIG.snr_db, 0) for part in parts)
    return known, other


@functools.cache
def _searched() -> tuple[training.FrameSample, np.ndarray, np.ndarray]:
    """The dictionary, a frame that is looked up in it, and that frame's ideal mask."""
    known, other = _mixtures()
    analysis = _analyse(other, 0)
    loudest = int(jnp.argmax(jnp.sum(jnp.abs(analysis.speech[0]), axis=-1)))
    query, ideal = (np.asarray(part[0, loudest]) for part in (analysis.frames, analysis.mask))
    return training.sample_frames(known, CONFIG), query, ideal


def _analyse(mixtures: Mixtures, number: int) -> training.Analysis:
    speech, noise = (jnp.asarray(part)[None] for part in mixtures[number][:2])
    return training.analyse(speech, noise, CONFIG)


def look_up() -> LookUp:
    """One frame of a new utterance looked up by cosine (Algorithm 1)."""
    sample, query, ideal = _searched()
    nearest = search.cosine_top_k(query[None], sample.frames, _NUM_NEIGHBORS).indices[0]
    others = np.setdiff1d(np.arange(len(sample.frames)), nearest)
    drawn = np.random.default_rng(0).choice(others, _NUM_ROWS - _NUM_NEIGHBORS, replace=False)
    rows = np.sort(np.concatenate([drawn, nearest]))
    frames = sample.frames[rows]
    masks = np.asarray(unpack_bits(jnp.asarray(sample.masks[rows]), len(ideal)))
    found = np.searchsorted(rows, nearest)
    return LookUp(query, ideal, frames, masks, frames @ query, found, len(sample.frames))


def random_codes(lengths: tuple[int, ...] = (25, 150)) -> Codes:
    """The same frame and the dictionary in random bits.

    Args:
        lengths: of the codes, the shortest first.
    """
    sample, query, _ = _searched()
    frames = jnp.asarray(np.concatenate([query[None], sample.frames]))
    hasher = codes.random_hasher(jax.random.key(2), lengths[-1], frames)
    bits = np.asarray(codes.project(frames, hasher.projections, hasher.biases) >= 0)
    same = bits[1:] == bits[0]
    cosines = sample.frames @ query
    order, short = np.argsort(-cosines), bits[:, : lengths[0]]
    near, far = short[1 + order[0]], short[1 + order[len(order) // 2]]
    return Codes(cosines, {n: same[:, :n].sum(1) for n in lengths}, short[0], near, far)


def parted(degrees: np.ndarray, num_lines: int) -> np.ndarray:
    """The part of random lines through the origin that run between two directions.

    Args:
        degrees: (A,) angles between the directions.
        num_lines: lines for each angle.

    Returns:
        (A,) in [0, 1]. Its expectation is the angle over 180 degrees.
    """
    hasher = codes.random_hasher(jax.random.key(3), num_lines, jnp.zeros((1, 2)), centered=False)
    angles = np.deg2rad(np.stack([np.zeros_like(degrees), degrees]))
    points = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=-1), jnp.float32)
    one, other = codes.project(points, hasher.projections, hasher.biases) >= 0
    return np.asarray(jnp.mean(one != other, axis=-1))


def rings(num_points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) of two rings and their classes (N,): -1 of the inner one, +1 of the outer."""
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(num_points) % 2, 1.0, -1.0)
    radius = np.where(labels > 0, 2.0, 1.0) + rng.normal(0.0, 0.2, num_points)
    angles = rng.uniform(0, 2 * np.pi, num_points)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=-1), labels


def adaboost(points: np.ndarray, labels: np.ndarray, num_learners: int) -> Ensemble:
    """AdaBoost of lines: each is the best of some random directions, for points by weight.

    Args:
        points: (N, 2).
        labels: (N,) of -1 and +1.
        num_learners: M.

    Returns:
        The lines. A point weighs exp(-y f(x)) after them, y its class and f(x) its votes.

    Source: Freund and Schapire, "A decision-theoretic generalization of on-line learning and an
    application to boosting", 1997; the weight of a line is eq. 6 of [ICASSP20].
    """
    rng, weights = np.random.default_rng(0), np.full(len(points), 1 / len(points))
    lines = []
    for _ in range(num_learners):
        angles = rng.uniform(0, 2 * np.pi, _NUM_DIRECTIONS)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        along = points @ directions.T
        order = np.argsort(along, axis=0)
        # The error of calling all +1, less what is gained point by point as more are called -1.
        errors = weights[labels < 0].sum() + np.cumsum((weights * labels)[order], axis=0)
        row, column = np.unravel_index(np.argmin(errors[:-1]), errors[:-1].shape)
        threshold = along[order[row : row + 2, column], column].mean()
        beta = float(boosting.beta(jnp.asarray(errors[row, column])))
        lines.append((directions[column], threshold, beta))
        code = np.where(along[:, column] >= threshold, 1.0, -1.0)
        weights = weights * np.exp(-beta * labels * code)
        weights /= weights.sum()
    return Ensemble(*(np.array(part) for part in zip(*lines, strict=True)))


def learned_bits() -> Learned:
    """Bits that are learned on the frames of one mixture, for their cosine similarity."""
    known, _ = _mixtures()
    frames = _analyse(known, _SHOWN).frames[0]
    config = dataclasses.replace(_FIT, block_size=len(frames))
    hasher, _ = training.fit(np.asarray(frames), config, jax.random.key(4))
    bits = codes.project(frames, hasher.projections, hasher.biases) >= 0
    target = similarity.self_similarity(frames, config.target)
    return Learned(*(np.asarray(array) for array in (target, bits, hasher.betas)))

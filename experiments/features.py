r"""Features in place of the recipe's: compressed spectra, other floors, fewer dimensions, kernels.

    python -m experiments.features --recipe=general --speech DIR --noise DIR \
        --output features.json

For validation, on training material alone, with noises left out in groups as in
``experiments.unseen``, which has rows for the features that a configuration can ask for. Bits are
learned and refined anew on each of these. Takes half an hour on two CPU cores.

Letters: U utterances, T frames, F bins, D features, N drawn frames, M bands or anchors, C mel
bands.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import corpora, separation, similarity, spectra, training
from blsh_jax.config import FeatureConfig, FitConfig, StftConfig, TrainConfig
from blsh_jax.spectra import Extract, unit_norm
from blsh_jax.training import FrameSample
from experiments import validation
from experiments.workbench import masking

_COLUMNS = ["features", "num_features", "num_bits", "sdr", "si_sdr"]
_COMPRESSION = 0.3  # power of magnitudes
_QUANTILE = 0.1
_NUM_REDUCED = 64
_NUM_ANCHORS = 300
_KERNEL_SIGMA2 = FitConfig().sigma2  # as wide as the kernel of the self-similarity matrix
_Map = Callable[[Array], Array]  # (..., D) to (..., D')


def features(
    group: validation.Group, config: TrainConfig, num_bits: Sequence[int]
) -> validation.Rows:
    """A row per kind of features and length, of one group of noises left out.

    Args:
        group: of ``validation.left_out_in_turn``.
        config: the recipe.
        num_bits: code lengths.

    Raises:
        ValueError: the recipe's features have no levels that could be changed.
    """
    if not config.features.levels:
        raise ValueError("levels is 0: give mel bands whose levels can be changed")
    mixtures = corpora.training_mixtures(group.speech, group.noise, config)
    systems = {}
    for name, extract, sample in _drawn(mixtures, config):
        print(name, flush=True)
        dictionary = training.learn(sample, config, {}, progress=True)[0].dictionary
        for length in num_bits:
            mask = _searching(dictionary.prefix(length), extract, config)
            row = name, sample.frames.shape[1], length
            systems[row] = masking(name, length, mask, config, config.evidence)
    return validation.scored(systems, ("features", "num_features", "num_bits"), group.tests)


def compressed(kind: Literal["magnitude", "mel"]) -> Extract:
    """The recipe's, with magnitudes of bins or of mel bands to the power of 0.3."""

    def extract(spectrum: Array, features: FeatureConfig, stft: StftConfig) -> Array:
        linear = dataclasses.replace(features, kind=kind)
        shown, *rest = _parts(spectra.features(spectrum, linear, stft), linear)
        return unit_norm(jnp.concatenate([unit_norm(shown**_COMPRESSION), *rest], axis=-1))

    return extract


def above(floor: Callable[[Array, int], Array]) -> Extract:
    """The recipe's, with levels above another noise floor.

    Args:
        floor: mel magnitudes (..., T, M) and ``floor_frames`` to their floors, (..., T, M).
    """

    def extract(spectrum: Array, features: FeatureConfig, stft: StftConfig) -> Array:
        bands = spectra.level_bands(spectrum, features, stft)
        floors = floor(bands, features.floor_frames)
        known = (bands > 0) & (floors > 0)
        ratio = jnp.where(known, bands, 1.0) / jnp.where(known, floors, 1.0)
        levels = jnp.clip(20 * jnp.log10(ratio), 0.0, spectra.LEVEL_RANGE_DB)
        return _with_levels(levels, spectrum, features, stft)

    return extract


def quantile_of_past(bands: Array, count: int) -> Array:
    """The tenth percentile of the last frames, the frame itself the last; causal."""
    return jnp.quantile(_windows(bands, count, count - 1), _QUANTILE, axis=0)


def least_around(bands: Array, count: int) -> Array:
    """The least of as many frames, half of them to come."""
    return jnp.min(_windows(bands, count, count // 2), axis=0)


def relative_to_mean(spectrum: Array, features: FeatureConfig, stft: StftConfig) -> Array:
    """The recipe's, its levels less their mean over the utterance."""
    bands = spectra.level_bands(spectrum, features, stft)
    before = [(0, 0)] * (bands.ndim - 2) + [(spectra.num_past_frames(features, stft), 0), (0, 0)]
    levels = spectra.levels_above_floor(jnp.pad(bands, before), features, stft)
    return _with_levels(levels - jnp.mean(levels, axis=-2, keepdims=True), spectrum, features, stft)


def principal_components(sample: FrameSample) -> np.ndarray:
    """(D, 64) the first principal components of the frames."""
    return np.linalg.eigh(np.cov(sample.frames.T))[1][:, ::-1][:, :_NUM_REDUCED]


def foretelling_components(sample: FrameSample) -> np.ndarray:
    """(D, 64) of 64 sums of the features, those that foretell speech and noise best.

    Both are spectra of C mel bands, roots of magnitudes; least squares, of rank 64.

    Source: A. Izenman, "Reduced-rank regression for the multivariate linear model", Journal of
    Multivariate Analysis 5 (2), 1975.
    """
    centered = sample.frames - sample.frames.mean(axis=0)
    target = np.sqrt(sample.shares.astype(np.float32)).reshape(len(centered), -1)
    slopes = np.linalg.lstsq(centered, target - target.mean(axis=0), rcond=None)[0]
    axes = np.linalg.svd(centered @ slopes, full_matrices=False)[2][:_NUM_REDUCED]
    return slopes @ axes.T


def kernels(anchors: np.ndarray) -> _Map:
    """Gaussian kernels between frames, of norm 1, and (M, D) anchors.

    Hyperplanes between their values are not planes between frames.

    Source: W. Liu, J. Wang, R. Ji, Y. Jiang, S. Chang, "Supervised Hashing with Kernels", CVPR
    2012, section 3.1, which has 300 anchors at random.
    """
    columns = jnp.asarray(anchors, jnp.float32).T
    return lambda frames: similarity.rbf(_times(frames, columns), _KERNEL_SIGMA2)


_EXTRACTS: dict[str, Extract] = {
    "the recipe's": spectra.features,
    "bins to the power of 0.3": compressed("magnitude"),
    "mel bands to the power of 0.3": compressed("mel"),
    "floor: tenth percentile of the past": above(quantile_of_past),
    "floor: least of past and future": above(least_around),
    "levels less their mean over the utterance": relative_to_mean,
}
# Of frames, given a sample of them: functions of the recipe's vectors.
_MAPS: dict[str, Callable[[FrameSample], _Map]] = {
    "64 principal components": lambda sample: _sums(principal_components(sample)),
    "64 components that foretell speech and noise": lambda sample: _sums(
        foretelling_components(sample)
    ),
    "Gaussian kernels around 300 frames": lambda sample: kernels(sample.frames[:_NUM_ANCHORS]),
}


def _drawn(mixtures, config: TrainConfig):
    """Name, extract, and the frames that it makes of the same mixtures; one after the other."""
    for name, extract in _EXTRACTS.items():
        yield name, extract, training.sample_frames(mixtures, config, True, extract)
    whole = training.sample_frames(mixtures, config, True)
    for name, map_of in _MAPS.items():
        mapped = _centered(map_of(whole), whole)
        frames = np.asarray(mapped(jnp.asarray(whole.frames)))
        extract = lambda *args, mapped=mapped: mapped(spectra.features(*args))
        yield name, extract, whole._replace(frames=frames)


def _sums(axes: np.ndarray) -> _Map:
    return lambda frames: _times(frames, jnp.asarray(axes, jnp.float32))


def _centered(map_of_frames: _Map, sample: FrameSample) -> _Map:
    """Less the mean over the sample, and of norm 1."""
    mean = jnp.mean(map_of_frames(jnp.asarray(sample.frames)), axis=0)

    def mapped(frames: Array) -> Array:
        values = map_of_frames(frames)
        return unit_norm(values - jnp.broadcast_to(mean, values.shape))

    return mapped


def _times(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _with_levels(
    levels: Array, spectrum: Array, features: FeatureConfig, stft: StftConfig
) -> Array:
    """The recipe's features with these levels in place of its own."""
    shown, _, voiced = _parts(spectra.features(spectrum, features, stft), features)
    return unit_norm(jnp.concatenate([shown, unit_norm(levels), voiced], axis=-1))


def _parts(frames: Array, features: FeatureConfig) -> list[Array]:
    """Spectrum, levels and voicing of feature vectors, as they were before all were scaled."""
    voicing = frames.shape[-1] - features.voicing
    shown, *rest = jnp.split(frames, [voicing - features.levels, voicing], axis=-1)
    norm = jnp.linalg.norm(shown, axis=-1, keepdims=True)
    norm = jnp.where(norm > 0, norm, jnp.ones_like(norm))
    return [part / jnp.broadcast_to(norm, part.shape) for part in (shown, *rest)]


def _windows(bands: Array, count: int, before: int) -> Array:
    """(count, ..., T, M): of each frame those from ``before`` it; ends stand for what is beyond."""
    padding = [(0, 0)] * (bands.ndim - 2) + [(before, count - 1 - before), (0, 0)]
    padded, length = jnp.pad(bands, padding, mode="edge"), bands.shape[-2]
    return jnp.stack([padded[..., i : i + length, :] for i in range(count)])


def _searching(dictionary: separation.Dictionary, extract: Extract, config: TrainConfig):
    """A mask of a spectrum, from the neighbours of the features that ``extract`` makes of it."""

    @jax.jit
    def mask(spectrum: Array) -> Array:
        frames = extract(spectrum, config.features, config.stft)
        queries = dictionary.encode(frames.reshape(-1, frames.shape[-1]))
        found = separation.estimate_mask(dictionary, queries, config.num_neighbors)
        return found.reshape(spectrum.shape)

    return mask


if __name__ == "__main__":
    validation.run("features", features, _COLUMNS)

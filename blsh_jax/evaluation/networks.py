"""Networks: the fully connected and recurrent mask predictors that hashing is compared with.

    segments = cut_segments(mixtures, analysis, config)               training material, in memory
    network, info = train(segments, validation, num_bins, config, key)   Adam, early-stopped
    speech = pipeline.separate(mixtures, network_mask(network, separation), stft).speech

Both take the feature vectors that the search compares and predict the ideal binary mask, by
cross-entropy. A frame of zeros (digital silence, or what fills up a segment) has no loss, and what
follows the last other frame reaches no recurrent state.

Letters: S segments of T frames, U utterances, n samples, D features, F bins, H units.
Source: [ICASSP20] section 4.2 for the sizes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from blsh_jax import corpora, training
from blsh_jax._extras import extra
from blsh_jax.config import NetworkConfig, SeparationConfig, TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.paper import learner, spectra
from blsh_jax.paper.separation import FeatureMask, MaskFunction
from blsh_jax.paper.spectra import FeatureFunction
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.speech_presence import with_presence
from blsh_jax.search.packing import pack_bits, unpack_bits

with extra("train"):
    import optax
    from flax import linen as nn

_BATCH_SIZE = 32


class Segments(NamedTuple):
    """Frames in their order, and their masks.

    Attributes:
        frames: (S, T, D) float16 feature vectors; zeros after the end of an utterance.
        masks: (S, T, Wf) uint32, packed ideal binary masks.
    """

    frames: np.ndarray
    masks: np.ndarray


class TrainInfo(NamedTuple):
    """How training went.

    Attributes:
        training_loss: mean cross-entropy of each epoch, with dropout.
        validation_loss: the same on the validation material, without.
        best_epoch: number of the epoch whose weights were kept.
    """

    training_loss: list[float]
    validation_loss: list[float]
    best_epoch: int


class MaskPredictor(nn.Module):
    """Layers over frames: rectified units, or two LSTMs side by side, one from either end.

    Attributes:
        num_bins: F.
        config: kind and sizes.
    """

    num_bins: int
    config: NetworkConfig

    @nn.compact
    def __call__(self, frames: Array) -> Array:
        """Logits (U, T, F) of the masks of frames (U, T, D); dropout if there is a key for it."""
        config = self.config
        places = jnp.where(_are_frames(frames), jnp.arange(1, frames.shape[1] + 1)[None], 0)
        lengths = jnp.max(places, axis=1)
        for _ in range(config.num_layers):
            if config.kind == "fc":
                frames = nn.relu(nn.Dense(config.num_units)(frames))
            else:
                onward, back = (nn.RNN(nn.OptimizedLSTMCell(config.num_units)) for _ in range(2))
                frames = nn.Bidirectional(onward, back)(frames, seq_lengths=lengths)  # type: ignore[assignment]
            dropout = nn.Dropout(config.dropout, deterministic=not self.has_rng("dropout"))
            frames = dropout(frames)
        return nn.Dense(self.num_bins)(frames)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["parameters"], meta_fields=["predictor"]
)
@dataclasses.dataclass(frozen=True)
class Network:
    """A network, trained or not.

    Attributes:
        predictor: what it is made of.
        parameters: its weights, nested dictionaries by the names of the layers.
    """

    predictor: MaskPredictor
    parameters: Any

    @property
    def num_parameters(self) -> int:
        """How many weights it has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.parameters))

    @property
    def operations(self) -> int:
        """Floating-point operations per frame: two for every weight of the matrix products."""
        return 2 * sum(x.size for x in jax.tree.leaves(self.parameters) if x.ndim == 2)


def init(num_features: int, num_bins: int, config: NetworkConfig, key: Array) -> Network:
    """A network before training.

    Args:
        num_features: D.
        num_bins: F.
        config: kind and sizes.
        key: PRNG key of the weights.
    """
    predictor = MaskPredictor(num_bins, config)
    parameters = jax.jit(predictor.init)(key, jnp.zeros((1, 1, num_features)))

    def opened(path, leaf):
        return leaf + 1 if jax.tree_util.keystr(path).endswith("['hf']['bias']") else leaf

    # A bias of 1 keeps the memories of an LSTM open at the start of training.
    return Network(predictor, jax.tree_util.tree_map_with_path(opened, parameters))


def predict(network: Network, frames: Array, key: Array | None = None) -> Array:
    """Logits of the masks.

    Args:
        network: trained or not.
        frames: (U, T, D) float32 feature vectors.
        key: PRNG key of dropout; None leaves nothing out.

    Returns:
        (U, T, F) float32; a mask is their logistic function.
    """
    rngs = None if key is None else {"dropout": key}
    return network.predictor.apply(network.parameters, frames, rngs=rngs)  # type: ignore[return-value]


def cut_segments(
    mixtures: Sequence[Mixture],
    analysis: TrainConfig,
    config: NetworkConfig,
    progress: bool = False,
) -> Segments:
    """Mixtures as segments of equal length, a random choice of them if they are many.

    Args:
        mixtures: read once, in batches.
        analysis: transform, features and high-pass, as ``training.analyse``, and the seed of the
            choice.
        config: length and number of segments.
        progress: show a progress bar.

    Returns:
        The segments, in random order.
    """
    rng = np.random.default_rng(analysis.seed)
    # Drawing the mixtures first bounds the memory: what is not needed is never transformed.
    stft, lengths = analysis.separation.stft, corpora.mixture_lengths(mixtures)
    counts = [-(-spectra.num_frames(int(n), stft) // config.segment_frames) for n in lengths]
    order = rng.permutation(len(mixtures))
    needed = int(np.searchsorted(np.cumsum(np.array(counts)[order]), config.max_segments)) + 1
    chosen = [mixtures[int(i)] for i in order[:needed]]
    parts = []
    batches = corpora.batches(chosen, _BATCH_SIZE)
    for batch in tqdm(batches, "segments", unit="batch", disable=not progress):
        made = _segments(batch.speech, batch.noise, analysis, config.segment_frames)
        frames, packed = (np.asarray(array) for array in made)
        kept = frames.any(axis=(1, 2))
        parts.append((frames[kept], packed[kept]))
    frames, packed = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = rng.permutation(len(frames))[: config.max_segments]
    return Segments(frames[order], packed[order])


def train(
    segments: Segments,
    validation: Segments,
    num_bins: int,
    config: NetworkConfig,
    key: Array,
    progress: bool = False,
) -> tuple[Network, TrainInfo]:
    """Train a network, and keep the weights of the epoch with the lowest validation loss.

    Args:
        segments: training material.
        validation: what early stopping looks at.
        num_bins: F.
        config: the network and its training.
        key: PRNG key of weights, order and dropout.
        progress: show a progress bar.

    Returns:
        The network, and how it went.

    Raises:
        ValueError: fewer segments than one optimiser step takes, or the loss is no number.

    Source: [ICASSP20] section 4.2; the optimiser and the stopping rule are ours.
    """
    if len(segments.frames) < config.batch_segments:
        raise ValueError(
            f"{len(segments.frames)} segments, fewer than batch_segments "
            f"{config.batch_segments}: give more speech or smaller batches"
        )
    weights_key, key = jax.random.split(key)
    best = init(segments.frames.shape[-1], num_bins, config, weights_key)
    walk = learner.Walk(best, _adam(config).init(best))
    info = TrainInfo([], [], 0)
    bar = tqdm(range(config.max_epochs), config.kind, unit="epoch", disable=not progress)
    for epoch in bar:
        walk, training_loss = _epoch(walk, segments, config, jax.random.fold_in(key, epoch))
        losses = training_loss, validation_loss(walk.rows, validation, config)
        if not np.all(np.isfinite(losses)):
            raise ValueError(f"the loss of epoch {epoch} is {losses}: lower learning_rate")
        info.training_loss.append(losses[0])
        info.validation_loss.append(losses[1])
        bar.set_postfix(training=f"{losses[0]:.4f}", validation=f"{losses[1]:.4f}")
        if losses[1] <= min(info.validation_loss):
            best, info = walk.rows, info._replace(best_epoch=epoch)
        elif epoch - info.best_epoch >= config.patience:
            break
    return best, info


def validation_loss(network: Network, segments: Segments, config: NetworkConfig) -> float:
    """Mean cross-entropy over bins of frames, without dropout."""
    total, count = 0.0, 0.0
    for start in range(0, len(segments.frames), config.batch_segments):
        part = slice(start, start + config.batch_segments)
        sums = _loss_sums(network, *(array[part] for array in segments))
        total, count = total + float(sums[0]), count + float(sums[1])
    return total / count


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["network"], meta_fields=["features"]
)
@dataclasses.dataclass(frozen=True)
class NetworkMask(FeatureMask):
    """The masks that a network predicts; a recurrent one needs utterances in one block.

    Attributes:
        network: trained.
        features: what it was trained on.

    Source: [ICASSP20] section 4.2.
    """

    network: Network
    features: FeatureFunction

    def __call__(self, state: Any, newest: Array, current: Array) -> tuple[Any, Array]:
        """As ``MaskFunction``."""
        del current
        state, frames = self.features(state, newest)
        return state, nn.sigmoid(predict(self.network, frames))


def network_mask(network: Network, separation: SeparationConfig) -> MaskFunction:
    """The masks that a network gives, used as a configuration says.

    Args:
        network: a trained network.
        separation: transform, features and speech presence.
    """
    features = feature_function(separation.features, separation.stft)
    return with_presence(NetworkMask(network, features), separation)


@functools.partial(jax.jit, static_argnames=("analysis", "segment_frames"))
def _segments(speech, noise, analysis, segment_frames) -> tuple[Array, Array]:
    """Frames (S, T, D) and packed masks (S, T, Wf) of a batch of mixtures (U, n)."""
    *_, frames, binary = training.analyse(speech, noise, analysis)
    missing = -frames.shape[1] % segment_frames

    def cut(array):
        padded = jnp.pad(array, [(0, 0), (0, missing), (0, 0)])
        return padded.reshape(-1, segment_frames, array.shape[-1])

    return cut(frames.astype(jnp.float16)), cut(pack_bits(binary))


def _epoch(walk, segments, config, key) -> tuple[learner.Walk, float]:
    """One pass over the segments in random order; the last incomplete batch is left out."""
    order_key, key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(order_key, len(segments.frames)))
    losses = []
    for step in range(len(order) // config.batch_segments):
        rows = order[step * config.batch_segments : (step + 1) * config.batch_segments]
        batch = (array[rows] for array in segments)
        walk, loss = _step(walk, *batch, jax.random.fold_in(key, step), config)
        losses.append(loss)
    return walk, float(np.mean(jax.device_get(losses)))


@functools.partial(jax.jit, static_argnames="config")
def _step(walk, frames, packed, key, config) -> tuple[learner.Walk, Array]:
    def mean_loss(network):
        total, count = _loss_sums(network, frames, packed, key)
        return total / count

    loss, gradient = jax.value_and_grad(mean_loss)(walk.rows)
    return learner.update(_adam(config), walk, gradient), loss


@jax.jit
def _loss_sums(network, frames, packed, key=None) -> tuple[Array, Array]:
    """Cross-entropy summed over bins of frames, and the number of these bins."""
    frames = jnp.asarray(frames, jnp.float32)
    logits = predict(network, frames, key)
    target = unpack_bits(packed, logits.shape[-1]).astype(logits.dtype)
    losses = optax.sigmoid_binary_cross_entropy(logits, target)
    valid = _are_frames(frames).astype(logits.dtype)
    return jnp.sum(jnp.sum(losses, axis=-1) * valid), jnp.sum(valid) * logits.shape[-1]


def _are_frames(frames: Array) -> Array:
    """Which feature vectors (..., D) are not all zero, (...) bool."""
    return jnp.max(jnp.abs(frames), axis=-1) > 0


def _adam(config: NetworkConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate)

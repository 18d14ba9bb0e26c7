"""Networks: the fully connected and recurrent mask predictors that hashing is compared with.

    segments = cut_segments(mixtures, analysis, config)               training material, in memory
    network, info = train(segments, validation, num_bins, config, key)   Adam, early-stopped
    speech = pipeline.separate(mixtures, network_mask(network, separation), stft).speech

Both take the feature vectors that the search compares and predict the ideal binary mask, by
cross-entropy. A frame of zeros (digital silence, or what fills up a segment) is no frame: it has no
loss, and a recurrent state does not pass it.

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
import optax
from flax import nnx
from jax import Array
from tqdm import tqdm

from blsh_jax import corpora, training
from blsh_jax.config import NetworkConfig, SeparationConfig, TrainConfig
from blsh_jax.corpora import Mixture
from blsh_jax.paper import learner, masks, spectra
from blsh_jax.paper.separation import FeatureMask, MaskFunction
from blsh_jax.paper.spectra import FeatureFunction
from blsh_jax.robust.features import feature_function
from blsh_jax.robust.speech_presence import with_presence
from blsh_jax.search.packing import unpack_bits

_BATCH_SIZE = 32


class Segments(NamedTuple):
    """Frames in their order, and their masks.

    Attributes:
        frames: (S, T, D) float16 feature vectors; zeros after the end of an utterance.
        masks: (S, T, Wf) uint32, packed ideal binary masks.
    """

    frames: np.ndarray
    masks: np.ndarray


class Network(NamedTuple):
    """A trained network.

    Attributes:
        definition: what it is made of, static.
        parameters: its weights.
    """

    definition: Any
    parameters: Any

    @property
    def num_parameters(self) -> int:
        """How many weights it has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.parameters))


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


class FullyConnected(nnx.Module):
    """Hidden layers of rectified units, frame by frame."""

    def __init__(self, num_features: int, num_bins: int, config: NetworkConfig, rngs: nnx.Rngs):
        widths = [num_features, *[config.num_units] * config.num_layers]
        self.dropout = config.dropout
        self.num_layers = config.num_layers
        for i in range(config.num_layers):
            setattr(self, f"hidden{i}", nnx.Linear(widths[i], widths[i + 1], rngs=rngs))
        self.output = nnx.Linear(widths[-1], num_bins, rngs=rngs)

    def __call__(self, frames: Array, key: Array | None = None) -> Array:
        """Logits (U, T, F) of the masks of frames (U, T, D); with a key, dropout."""
        for i in range(self.num_layers):
            frames = nnx.relu(getattr(self, f"hidden{i}")(frames))
            frames = _dropout(frames, self.dropout, key, i)
        return self.output(frames)


class Lstm(nnx.Module):
    """A long short-term memory over frames, one direction."""

    def __init__(self, num_features: int, num_units: int, rngs: nnx.Rngs):
        self.inputs = nnx.Linear(num_features, 4 * num_units, rngs=rngs)
        orthogonal = nnx.initializers.orthogonal()
        self.recurrent = nnx.Param(orthogonal(rngs.params(), (num_units, 4 * num_units)))

    def __call__(self, frames: Array, valid: Array, reverse: bool) -> Array:
        """Outputs (U, T, H) for frames (U, T, D), of which ``valid`` (U, T) are frames."""
        recurrent = self.recurrent[...]
        # Products with the inputs need no state: all frames at once, outside the loop.
        inputs = jnp.swapaxes(self.inputs(frames), 0, 1)
        start = jnp.zeros((frames.shape[0], recurrent.shape[0]), inputs.dtype)

        def visit(carry, step):
            gates, keep = step
            output, cell = carry
            gates = gates + output @ recurrent
            enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
            # The 1 keeps the memory open at the start of training.
            cell = nnx.sigmoid(forget + 1.0) * cell + nnx.sigmoid(enter) * jnp.tanh(new)
            output = nnx.sigmoid(leave) * jnp.tanh(cell)
            keep = jnp.broadcast_to(keep[:, None], cell.shape)
            return (output * keep, cell * keep), output * keep

        valid = valid.T.astype(inputs.dtype)
        _, outputs = jax.lax.scan(visit, (start, start), (inputs, valid), reverse=reverse)
        return jnp.swapaxes(outputs, 0, 1)


class Blstm(nnx.Module):
    """Layers of two LSTMs side by side, one over the frames from either end."""

    def __init__(self, num_features: int, num_bins: int, config: NetworkConfig, rngs: nnx.Rngs):
        widths = [num_features, *[2 * config.num_units] * config.num_layers]
        self.dropout = config.dropout
        self.num_layers = config.num_layers
        for i in range(config.num_layers):
            setattr(self, f"forward{i}", Lstm(widths[i], config.num_units, rngs))
            setattr(self, f"backward{i}", Lstm(widths[i], config.num_units, rngs))
        self.output = nnx.Linear(widths[-1], num_bins, rngs=rngs)

    def __call__(self, frames: Array, key: Array | None = None) -> Array:
        """Logits (U, T, F) of the masks of frames (U, T, D); with a key, dropout."""
        valid = are_frames(frames)
        for i in range(self.num_layers):
            directions = [
                getattr(self, f"forward{i}")(frames, valid, reverse=False),
                getattr(self, f"backward{i}")(frames, valid, reverse=True),
            ]
            frames = _dropout(jnp.concatenate(directions, axis=-1), self.dropout, key, i)
        return self.output(frames)


_KINDS = {"fc": FullyConnected, "blstm": Blstm}


def init(num_features: int, num_bins: int, config: NetworkConfig, key: Array) -> Network:
    """A network before training.

    Args:
        num_features: D.
        num_bins: F.
        config: kind and sizes.
        key: PRNG key of the weights.
    """
    module = _KINDS[config.kind](num_features, num_bins, config, nnx.Rngs(key))
    return Network(*nnx.split(module))


def predict(network: Network, frames: Array, key: Array | None = None) -> Array:
    """Logits of the masks.

    Args:
        network: trained or not.
        frames: (U, T, D) float32 feature vectors.
        key: PRNG key of dropout; None leaves nothing out.

    Returns:
        (U, T, F) float32; a mask is their logistic function.
    """
    return nnx.merge(network.definition, network.parameters)(frames, key)


def are_frames(frames: Array) -> Array:
    """Which feature vectors (..., D) are not all zero, (...) bool."""
    return jnp.max(jnp.abs(frames), axis=-1) > 0


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
    frames, packed = [], []
    # Drawing the mixtures first bounds the memory: what is not needed is never transformed.
    stft, lengths = analysis.separation.stft, corpora.mixture_lengths(mixtures)
    counts = [-(-spectra.num_frames(int(n), stft) // config.segment_frames) for n in lengths]
    order = rng.permutation(len(mixtures))
    needed = int(np.searchsorted(np.cumsum(np.array(counts)[order]), config.max_segments)) + 1
    chosen = [mixtures[int(i)] for i in order[:needed]]
    bar = tqdm(total=len(chosen), desc="segments", unit="mix", disable=not progress)
    for batch in corpora.batches(chosen, _BATCH_SIZE):
        parts = _segments(batch.speech, batch.noise, analysis, config.segment_frames)
        kept = np.asarray(parts[0]).any(axis=(1, 2))
        frames.append(np.asarray(parts[0])[kept])
        packed.append(np.asarray(parts[1])[kept])
        bar.update(np.count_nonzero(batch.lengths))
    bar.close()
    order = rng.permutation(sum(len(part) for part in frames))[: config.max_segments]
    return Segments(np.concatenate(frames)[order], np.concatenate(packed)[order])


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
    network = init(segments.frames.shape[-1], num_bins, config, weights_key)
    optimizer = _adam(config).init(network.parameters)
    best, stale = network, 0
    info = TrainInfo([], [], 0)
    bar = tqdm(total=config.max_epochs, desc=config.kind, unit="epoch", disable=not progress)
    for epoch in range(config.max_epochs):
        network, optimizer, loss = _epoch(
            network, optimizer, segments, config, jax.random.fold_in(key, epoch)
        )
        info.training_loss.append(loss)
        info.validation_loss.append(validation_loss(network, validation, config))
        _check_loss(info, epoch)
        bar.set_postfix(training=f"{loss:.4f}", validation=f"{info.validation_loss[-1]:.4f}")
        bar.update()
        if info.validation_loss[-1] <= min(info.validation_loss):
            best, stale = network, 0
            info = info._replace(best_epoch=epoch)
        else:
            stale += 1
        if stale >= config.patience:
            break
    bar.close()
    return best, info


def validation_loss(network: Network, segments: Segments, config: NetworkConfig) -> float:
    """Mean cross-entropy over bins of frames, without dropout."""
    total, count = 0.0, 0.0
    for start in range(0, len(segments.frames), config.batch_segments):
        part = slice(start, start + config.batch_segments)
        sums = _loss_sums(network.parameters, network.definition, *(a[part] for a in segments))
        total, count = total + float(sums[0]), count + float(sums[1])
    return total / count


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters"],
    meta_fields=["definition", "features"],
)
@dataclasses.dataclass(frozen=True)
class NetworkMask(FeatureMask):
    """The masks that a network predicts; a recurrent one needs utterances in one block.

    Attributes:
        parameters: the network's weights.
        definition: what it is made of.
        features: what it was trained on.

    Source: [ICASSP20] section 4.2.
    """

    parameters: Any
    definition: Any
    features: FeatureFunction

    def __call__(self, state: Any, newest: Array, current: Array) -> tuple[Any, Array]:
        """As ``MaskFunction``."""
        del current
        state, frames = self.features(state, newest)
        return state, nnx.sigmoid(predict(Network(self.definition, self.parameters), frames))


def network_mask(network: Network, separation: SeparationConfig) -> MaskFunction:
    """The masks that a network gives, used as a configuration says.

    Args:
        network: a trained network.
        separation: transform, features and speech presence.
    """
    features = feature_function(separation.features, separation.stft)
    return with_presence(NetworkMask(network.parameters, network.definition, features), separation)


def to_arrays(network: Network) -> dict[str, np.ndarray]:
    """The weights by name, for a file."""
    leaves = jax.tree_util.tree_leaves_with_path(network.parameters)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def from_arrays(
    arrays: dict[str, np.ndarray], num_features: int, num_bins: int, config: NetworkConfig
) -> Network:
    """The network whose weights ``to_arrays`` named.

    Args:
        arrays: of ``to_arrays``.
        num_features: D.
        num_bins: F.
        config: kind and sizes.

    Raises:
        ValueError: the weights belong to a network of another kind or size.
    """
    definition, template = init(num_features, num_bins, config, jax.random.key(0))
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise ValueError(f"these weights are of another network than {config}")
    weights = [jnp.asarray(arrays[name]) for name in shapes]
    return Network(definition, jax.tree.unflatten(structure, weights))


def operations(num_features: int, num_bins: int, config: NetworkConfig) -> int:
    """Floating-point operations per frame: two for every weight of the matrix products."""
    units = config.num_units
    if config.kind == "fc":
        inner = (config.num_layers - 1) * units**2
        return 2 * (num_features * units + inner + units * num_bins)
    widths = [num_features, *[2 * units] * (config.num_layers - 1)]
    return 2 * (sum(2 * 4 * units * (width + units) for width in widths) + 2 * units * num_bins)


@functools.partial(jax.jit, static_argnames=("analysis", "segment_frames"))
def _segments(speech, noise, analysis, segment_frames) -> tuple[Array, Array]:
    """Frames (S, T, D) and packed masks (S, T, Wf) of a batch of mixtures (U, n)."""
    *_, frames, binary = training.analyse(speech, noise, analysis)
    missing = -frames.shape[1] % segment_frames

    def cut(array):
        padded = jnp.pad(array, [(0, 0), (0, missing), (0, 0)])
        return padded.reshape(-1, segment_frames, array.shape[-1])

    return cut(frames.astype(jnp.float16)), cut(masks.pack_masks(binary))


def _epoch(network, optimizer, segments, config, key) -> tuple[Network, Any, float]:
    """One pass over the segments in random order; the last incomplete batch is left out."""
    order_key, key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(order_key, len(segments.frames)))
    definition, parameters = network
    losses = []
    for step in range(len(order) // config.batch_segments):
        rows = order[step * config.batch_segments : (step + 1) * config.batch_segments]
        batch = (segments.frames[rows], segments.masks[rows])
        parameters, optimizer, loss = _step(
            parameters, optimizer, definition, *batch, jax.random.fold_in(key, step), config
        )
        losses.append(loss)
    return Network(definition, parameters), optimizer, float(np.mean(jax.device_get(losses)))


@functools.partial(jax.jit, static_argnames=("definition", "config"), donate_argnames="optimizer")
def _step(parameters, optimizer, definition, frames, packed, key, config):
    def mean_loss(parameters):
        total, count = _loss_sums(parameters, definition, frames, packed, key)
        return total / count

    loss, gradient = jax.value_and_grad(mean_loss)(parameters)
    walk = learner.update(_adam(config), learner.Walk(parameters, optimizer), gradient)
    return *walk, loss


@functools.partial(jax.jit, static_argnames="definition")
def _loss_sums(parameters, definition, frames, packed, key=None) -> tuple[Array, Array]:
    """Cross-entropy summed over bins of frames, and the number of these bins."""
    frames = jnp.asarray(frames, jnp.float32)
    logits = predict(Network(definition, parameters), frames, key)
    target = unpack_bits(packed, logits.shape[-1]).astype(logits.dtype)
    # -t log m - (1 - t) log(1 - m) of the mask m = 1 / (1 + exp(-logit)), without overflow.
    losses = jax.nn.softplus(logits) - target * logits
    valid = are_frames(frames).astype(logits.dtype)
    return jnp.sum(jnp.sum(losses, axis=-1) * valid), jnp.sum(valid) * logits.shape[-1]


def _check_loss(info: TrainInfo, epoch: int) -> None:
    losses = info.training_loss[-1], info.validation_loss[-1]
    if not np.all(np.isfinite(losses)):
        raise ValueError(f"the loss of epoch {epoch} is {losses}: lower learning_rate")


def _adam(config: NetworkConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate)


def _dropout(values: Array, rate: float, key: Array | None, layer: int) -> Array:
    """Values with a random part set to zero, the rest scaled up; unchanged without a key."""
    if key is None or rate == 0:
        return values
    kept = jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, values.shape)
    return jnp.where(kept, values / (1 - rate), jnp.zeros_like(values))

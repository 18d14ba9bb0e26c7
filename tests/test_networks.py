import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax import corpora
from blsh_jax.config import NetworkConfig, SeparationConfig, SpeechPresenceConfig, TrainConfig
from blsh_jax.evaluation import masking, networks
from blsh_jax.paper import masks, spectra
from blsh_jax.paper.spectra import SpectralFeatures
from blsh_jax.robust.speech_presence import PresenceMask

ANALYSIS = TrainConfig()
SEPARATION = ANALYSIS.separation
STFT = SEPARATION.stft
FEATURES = SpectralFeatures(SEPARATION.features, STFT)
FC = NetworkConfig("fc", 2, 24, batch_segments=8, segment_frames=20, max_epochs=6)
BLSTM = dataclasses.replace(FC, kind="blstm", num_layers=2, num_units=12)


@pytest.fixture(scope="module")
def segments(synthetic):
    """Training and validation segments of the synthetic corpus."""
    parts = ("train", "closed")
    mixtures = [corpora.make_mixtures(*synthetic, 0.0, 0, p, 0.3, max_mixtures=24) for p in parts]
    return [networks.cut_segments(m, ANALYSIS, FC) for m in mixtures]


@pytest.fixture(scope="module", params=[FC, BLSTM], ids=lambda config: config.kind)
def learned(request, segments):
    """A network of either kind, and how its training went."""
    return request.param, *networks.train(*segments, 513, request.param, jax.random.key(0))


def test_training_lowers_the_validation_loss(learned, segments):
    config, network, info = learned
    fresh = networks.init(513, 513, config, jax.random.key(5))
    before = networks.validation_loss(fresh, segments[1], config)
    after = networks.validation_loss(network, segments[1], config)
    assert after < 0.95 * before
    assert after == pytest.approx(min(info.validation_loss), rel=1e-6)
    assert info.validation_loss[info.best_epoch] == min(info.validation_loss)


def test_training_is_the_same_again(learned, segments):
    config, network, info = learned
    again, same = networks.train(*segments, 513, config, jax.random.key(0))
    assert same == info
    for ours, theirs in zip(*map(jax.tree.leaves, (network, again)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_stops_without_patience(segments):
    config = dataclasses.replace(FC, patience=1, learning_rate=0.5, max_epochs=30)
    best, info = networks.train(*segments, 513, config, jax.random.key(0))
    assert len(info.validation_loss) < 30
    found = networks.validation_loss(best, segments[1], config)
    assert found == pytest.approx(info.validation_loss[info.best_epoch], rel=1e-6)
    assert info.validation_loss[-1] > info.validation_loss[info.best_epoch]
    assert info.best_epoch == len(info.validation_loss) - 2


def test_the_loss_is_the_cross_entropy_of_frames_only(segments):
    network = networks.init(513, 513, FC, jax.random.key(1))
    frames, packed = (array[:3] for array in segments[1])
    logits = np.float64(networks.predict(network, jnp.float32(frames)))
    target = np.unpackbits(packed.view(np.uint8), axis=-1, bitorder="little")[..., :513]
    mask = 1 / (1 + np.exp(-logits))
    losses = -np.where(target == 1, np.log(mask), np.log(1 - mask))[frames.any(-1)]
    part = networks.Segments(frames, packed)
    assert networks.validation_loss(network, part, FC) == pytest.approx(losses.mean(), rel=1e-5)


def test_fully_connected_is_its_matrices():
    network = networks.init(7, 5, FC, jax.random.key(2))
    x = np.random.default_rng(0).standard_normal((2, 3, 7)).astype(np.float32)
    weights = network.parameters
    hidden = x
    for i in range(2):
        layer = weights[f"hidden{i}"]
        hidden = np.maximum(hidden @ np.asarray(layer["kernel"][...]), 0)
    expected = hidden @ np.asarray(weights["output"]["kernel"][...])
    np.testing.assert_allclose(networks.predict(network, x), expected, atol=1e-5)


def test_lstm_against_its_equations():
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    config = dataclasses.replace(BLSTM, num_layers=1, num_units=4)
    network = networks.init(3, 2, config, jax.random.key(3))
    x = np.random.default_rng(1).standard_normal((1, 6, 3)).astype(np.float32)
    x[0, 4:] = 0  # not frames: the backward direction must start afresh before them
    sides = []
    for side, times in (("forward0", range(6)), ("backward0", range(5, -1, -1))):
        weights = network.parameters[side]
        h, c, outputs = np.zeros(4), np.zeros(4), np.zeros((6, 4))
        for t in times:
            gates = x[0, t] @ np.asarray(weights["inputs"]["kernel"][...])
            i, f, g, o = np.split(gates + h @ np.asarray(weights["recurrent"][...]), 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            if t >= 4:
                h, c = np.zeros(4), np.zeros(4)
            outputs[t] = h
        sides.append(outputs)
    expected = np.concatenate(sides, -1) @ np.asarray(network.parameters["output"]["kernel"][...])
    np.testing.assert_allclose(networks.predict(network, x)[0], expected, atol=1e-5)


def test_what_follows_the_end_changes_nothing(learned):
    _, network, _ = learned
    rng = np.random.default_rng(2)
    short = spectra.unit_norm(np.abs(rng.standard_normal((1, 9, 513))).astype(np.float32))
    long = np.pad(short, [(0, 0), (0, 11), (0, 0)])
    expected = networks.predict(network, short)
    np.testing.assert_allclose(networks.predict(network, long)[:, :9], expected, atol=1e-5)


def test_dropout_needs_a_key_and_keeps_the_mean():
    config = dataclasses.replace(FC, dropout=0.5, num_layers=1)
    network = networks.init(20, 6, config, jax.random.key(0))
    x = jnp.ones((1, 1, 20))
    plain = networks.predict(network, x)
    np.testing.assert_array_equal(plain, networks.predict(network, x))
    draws = jax.vmap(lambda key: networks.predict(network, x, key))(
        jax.random.split(jax.random.key(1), 4000)
    )
    assert float(jnp.std(draws)) > 0
    np.testing.assert_allclose(draws.mean(0), plain, atol=0.05)


def test_costs_count_the_weights_of_the_products(learned):
    config, network, _ = learned
    kernels = [leaf for leaf in jax.tree.leaves(network.parameters) if leaf.ndim == 2]
    expected = 2 * sum(kernel.size for kernel in kernels)
    assert networks.operations(513, 513, config) == expected
    biases = network.num_parameters - expected // 2
    assert 0 < biases < 1000


def test_separation_applies_the_mask(learned, synthetic):
    config, network, _ = learned
    mixture = corpora.make_mixtures(*synthetic, 0.0, 0, "closed", 0.3, max_mixtures=2)[0]
    speech, noise = (jnp.asarray(part)[None] for part in mixture[:2])
    system = masking(config.kind, None, networks.network_mask(network, SEPARATION), SEPARATION)
    found, mask = system.separate(speech, noise)
    spectrum = spectra.stft(speech + noise, STFT)
    logits = networks.predict(network, spectra.features(FEATURES, spectrum))
    np.testing.assert_allclose(mask, 1 / (1 + jnp.exp(-logits)), atol=1e-5)
    masked = masks.apply_mask(mask, spectrum)
    np.testing.assert_allclose(found, spectra.istft(masked, found.shape[1], STFT), atol=1e-5)
    assert float(jnp.sum((found - speech) ** 2)) < 0.8 * float(jnp.sum(noise**2))


def test_a_network_is_joined_with_speech_presence():
    config = dataclasses.replace(FC, num_units=4)
    network = networks.init(513, 513, config, jax.random.key(0))
    presence = SeparationConfig(speech_presence=SpeechPresenceConfig(snr_weight_low=0.5))
    function = networks.network_mask(network, presence)
    assert isinstance(function, PresenceMask) and function.look_ahead == 0
    assert isinstance(function.inner, networks.NetworkMask)


def test_weights_come_back():
    config, network = FC, networks.init(513, 513, FC, jax.random.key(0))
    arrays = networks.to_arrays(network)
    assert sum(array.size for array in arrays.values()) == network.num_parameters
    again = networks.from_arrays(arrays, 513, 513, config)
    frames = jnp.asarray(np.random.default_rng(4).random((1, 5, 513)), jnp.float32)
    found, expected = (networks.predict(n, frames) for n in (again, network))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="another network"):
        networks.from_arrays(arrays, 513, 513, dataclasses.replace(config, num_units=5))


def test_segments_hold_the_frames_in_order(synthetic):
    mixture = corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.3, max_mixtures=1)
    config = dataclasses.replace(FC, segment_frames=1000)
    found = networks.cut_segments(mixture, ANALYSIS, config)
    speech, noise = (spectra.stft(part, STFT) for part in mixture[0][:2])
    expected = np.asarray(spectra.features(FEATURES, speech + noise))
    np.testing.assert_allclose(found.frames[0, : len(expected)], expected, atol=1e-3)
    packed = masks.pack_masks(masks.ideal_binary_mask(speech, noise))
    np.testing.assert_array_equal(found.masks[0, : len(expected)], packed)
    assert not found.frames[0, len(expected) + 3 :].any()


def test_segments_are_bounded(synthetic):
    mixtures = corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.3, max_mixtures=20)
    config = dataclasses.replace(FC, max_segments=7)
    assert len(networks.cut_segments(mixtures, ANALYSIS, config).frames) == 7


def test_bad_settings_are_named(segments):
    with pytest.raises(ValueError, match="batch_segments"):
        networks.train(
            *segments, 513, dataclasses.replace(FC, batch_segments=10_000), jax.random.key(0)
        )

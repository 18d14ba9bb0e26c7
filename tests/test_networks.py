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
from blsh_jax.search.packing import pack_bits

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
    first, second, last = (network.parameters["params"][f"Dense_{i}"]["kernel"] for i in range(3))
    hidden = np.maximum(np.maximum(x @ first, 0) @ second, 0)
    np.testing.assert_allclose(networks.predict(network, x), hidden @ last, atol=1e-5)


def test_a_recurrent_network_hears_frames_on_both_sides():
    network = networks.init(3, 2, BLSTM, jax.random.key(3))
    x = np.random.default_rng(1).standard_normal((1, 6, 3)).astype(np.float32)
    other = np.repeat(x, 3, axis=0)
    other[1, 0] += 1
    other[2, -1] += 1
    plain, first, last = networks.predict(network, other)
    assert np.all(plain[-1] != first[-1]) and np.all(plain[0] != last[0])


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
    units, layers = config.num_units, config.num_layers
    products = 513 * units + (layers - 1) * units**2 + units * 513
    if config.kind == "blstm":
        widths = 513 + (layers - 1) * 2 * units + layers * units
        products = 2 * 4 * units * widths + 2 * units * 513
    assert network.operations == 2 * products
    assert 0 < network.num_parameters - products < 1000  # the biases


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


def test_segments_hold_the_frames_in_order(synthetic):
    mixture = corpora.make_mixtures(*synthetic, 0.0, 0, "train", 0.3, max_mixtures=1)
    config = dataclasses.replace(FC, segment_frames=1000)
    found = networks.cut_segments(mixture, ANALYSIS, config)
    speech, noise = (spectra.stft(part, STFT) for part in mixture[0][:2])
    expected = np.asarray(spectra.features(FEATURES, speech + noise))
    np.testing.assert_allclose(found.frames[0, : len(expected)], expected, atol=1e-3)
    packed = pack_bits(masks.ideal_binary_mask(speech, noise))
    np.testing.assert_array_equal(found.masks[0, : len(expected)], packed)
    assert not found.frames[0, len(expected) + 3 :].any()
    few = dataclasses.replace(FC, segment_frames=20, max_segments=2)
    assert len(networks.cut_segments(mixture, ANALYSIS, few).frames) == 2


def test_bad_settings_are_named(segments):
    for wrong in ({"batch_segments": 10_000}, {"learning_rate": 1e30}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            networks.train(*segments, 513, dataclasses.replace(FC, **wrong), jax.random.key(0))

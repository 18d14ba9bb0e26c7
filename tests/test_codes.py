import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blsh_jax.paper import codes
from blsh_jax.search import packing


@pytest.mark.parametrize("length", [1, 32, 33, 130])
def test_packing_keeps_every_bit_in_its_place(length):
    bits = np.random.default_rng(length).random((4, length)) < 0.5
    packed = packing.pack_bits(jnp.asarray(bits))
    assert packed.shape == (4, packing.num_words(length))
    for bit in range(length):
        expected = (np.asarray(packed)[:, bit // 32] >> (bit % 32)) & 1
        np.testing.assert_array_equal(expected, bits[:, bit])
    np.testing.assert_array_equal(packing.unpack_bits(packed, length), bits)


def test_codes_match_slow_signs_and_their_prefix_is_the_code_of_the_prefix():
    key, other = jax.random.split(jax.random.key(0))
    frames = jax.random.normal(key, (20, 13))
    hasher = codes.random_hasher(other, 100, frames)
    packed = codes.encode(hasher, frames)
    bits = np.asarray(frames) @ np.asarray(hasher.projections).T + np.asarray(hasher.biases) >= 0
    np.testing.assert_array_equal(packing.unpack_bits(packed, 100), bits)
    for num_bits in (1, 32, 33, 100):
        short = packing.prefix_codes(packed, num_bits)
        np.testing.assert_array_equal(short, codes.encode(hasher.prefix(num_bits), frames))
    assert codes.sign(jnp.array([-2.0, -0.0, 0.0, 3.0])).tolist() == [-1, 1, 1, 1]


def test_centred_random_bits_are_balanced_on_nonnegative_frames():
    frames = jnp.abs(jax.random.normal(jax.random.key(0), (2000, 30)))
    for centered, bound in ((True, 0.05), (False, 0.4)):
        hasher = codes.random_hasher(jax.random.key(1), 64, frames, centered)
        ones = packing.unpack_bits(codes.encode(hasher, frames), 64).mean(0)
        imbalance = float(jnp.abs(ones - 0.5).mean())
        assert imbalance < bound
        assert (imbalance < 0.05) == centered


def test_self_similarity_is_the_weighted_share_of_equal_bits():
    bits = np.random.default_rng(0).random((9, 12)) < 0.5
    betas = np.random.default_rng(1).random(12).astype(np.float32)
    expected = ((bits[:, None] == bits[None]) * betas).sum(-1) / betas.sum()
    actual = codes.self_similarity(jnp.asarray(bits), jnp.asarray(betas))
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert actual.shape == (9, 9)


def test_wrong_lengths_are_refused():
    packed = jnp.zeros((3, 2), jnp.uint32)
    with pytest.raises(ValueError, match="1 to 64"):
        packing.prefix_codes(packed, 65)
    with pytest.raises(ValueError, match="num_bits is 0"):
        packing.unpack_bits(packed, 0)

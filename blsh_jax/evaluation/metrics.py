"""Scores of separated signals: BSS_Eval version 3 (SDR, SIR, SAR) and SI-SDR, in dB.

Letters: U utterances, S sources, n samples, L taps of the distortion filter. Time is the last axis.

BSS_Eval splits an estimate e of source j into orthogonal parts. P_j e is its projection onto the
L delayed copies of source j, P e its projection onto those of all sources; P e - P_j e is
interference and e - P e artifacts:

    SDR = |P_j e|^2 / |e - P_j e|^2
    SIR = |P_j e|^2 / |P e - P_j e|^2
    SAR = |P e|^2 / |e - P e|^2

Three steps need neither the S L x S L matrix of inner products nor a filtered signal:

1. Only r = e - a s_j is projected, a being the least-squares gain. P_j e = a s_j + P_j r, so a
   nearly perfect estimate leaves a small r, and no energy is a difference of two large ones.
2. Correlations at L lags are sums over short blocks, so the transforms are short too.
3. The inner products of delayed copies form a block Toeplitz matrix. The block Schur recursion
   orthogonalises the copies, one delay after the other, in O(S^3 L^2) operations (Cholesky:
   O(S^3 L^3)), and |P r|^2 is the sum of squares of the inner products with that orthogonal basis.
   A copy that depends on earlier ones (one source twice) adds nothing and is left out.

Arrays are scored in float64, in a local ``jax.enable_x64`` context, so the caller's setting stays.
Speech is nearly band limited: its matrices have condition numbers of 1e7 and more, the reciprocal
of a float32 rounding, and float32 fails from about 40 dB on. A device without float64 (TPU) leaves
the work to the CPU. Arguments are read and checked on the host, and results are NumPy arrays.

Tracers (inside jit, grad or vmap) are scored in their own type, float32 at least, as losses are:
only shapes and types are checked, results are JAX arrays, and signals that are silent, not finite
or longer than the array give values without meaning.

SI-SDR forgives one gain instead of a filter: it is another quantity than SDR, never to be mixed up.

Source: E. Vincent, R. Gribonval, C. Fevotte, "Performance measurement in blind audio source
separation", IEEE TASLP 14(4), 2006; J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR -
half-baked or well done?", ICASSP 2019; P. Whittle, "On the fitting of multivariate
autoregressions", Biometrika 50, 1963 (the recursion).
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

_enable_x64: Any = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64  # jax 0.7

# Utterances that are scored together, which also bounds memory: as many as keep the recursion in a
# CPU's cache, and a GPU busy. Platforms that are not named have no float64.
_GROUP = {"cpu": 4, "gpu": 32}

# Stages of the recursion; each carries arrays shorter by 1 / _STAGES than the one before.
_STAGES = 2

# A delayed copy whose part outside the earlier ones has less than this share of its energy, in
# units of the type's epsilon, counts as dependent: below it the correlations are only roundings.
_DEPENDENT = 450


class BssEval(NamedTuple):
    """Scores of BSS_Eval in dB, each (S,) or (U, S): float64, or JAX arrays where they are traced.

    Attributes:
        sdr: source to distortion ratio.
        sir: source to interference ratio; infinite if there is one source only.
        sar: source to artifacts ratio.
    """

    sdr: np.ndarray
    sir: np.ndarray
    sar: np.ndarray


def bss_eval(
    reference: ArrayLike,
    estimate: ArrayLike,
    lengths: ArrayLike | None = None,
    filter_length: int = 512,
) -> BssEval:
    """Score estimates of sources, estimate j against source j (no search for a permutation).

    Args:
        reference: (S, n) or (U, S, n) floating point, the true sources.
        estimate: same shape.
        lengths: (U,) integers, valid samples of each utterance; what follows them is ignored. Only
            with (U, S, n).
        filter_length: L, taps of the distortion that an estimate is forgiven; static.

    Returns:
        SDR, SIR and SAR in dB, each (S,) or (U, S). Beyond about 140 dB only roundings remain (from
        about 40 dB on if float32 is traced), and a ratio to nothing is infinite, with a gradient of
        0 through that nothing: the SIR of a single source, or the SAR of filtered sources.

    Raises:
        ValueError: wrong shape, type or length, or a signal that is silent or not finite.

    Source: Vincent et al. 2006, section III.B; 512 taps, version 3.
    """
    if filter_length < 1:
        raise ValueError(f"filter_length is {filter_length}: give 1 tap or more")
    if np.ndim(reference) not in (2, 3):
        raise ValueError(
            f"reference has shape {np.shape(reference)}: give (sources, samples) or "
            "(utterances, sources, samples)"
        )
    batched = np.ndim(reference) == 3

    reference, estimate, lengths = _arrays(reference, estimate, lengths)

    def score(reference: Array, estimate: Array) -> Array:
        return _bss_scores(*_correlate(reference, estimate, filter_length))

    scores = _score(score, reference, estimate, lengths, batched, filter_length)
    return BssEval(*(scores if batched else scores[:, 0]))


def si_sdr(
    reference: ArrayLike, estimate: ArrayLike, lengths: ArrayLike | None = None
) -> np.ndarray:
    """Scale-invariant SDR, |a s|^2 / |a s - e|^2 with the least-squares gain a = <e, s> / |s|^2.

    Not the SDR of BSS_Eval, which forgives a filter. Means are not subtracted.

    Args:
        reference: (n,) or (U, n) floating point, the true signal s.
        estimate: same shape, e.
        lengths: (U,) integers, valid samples of each utterance. Only with (U, n).

    Returns:
        dB, () or (U,): float64, or a JAX array where arguments are traced.

    Raises:
        ValueError: wrong shape, type or length, or a signal that is silent or not finite.

    Source: Le Roux et al. 2019, eq. 3.
    """
    if np.ndim(reference) not in (1, 2):
        raise ValueError(
            f"reference has shape {np.shape(reference)}: give (samples,) or (utterances, samples)"
        )
    batched = np.ndim(reference) == 2
    signal, found, valid = _arrays(reference, estimate, lengths)
    one_source = signal[..., None, :], found[..., None, :]
    scores = _score(_si_sdr, *one_source, valid, batched, 1)[:, 0]
    return scores if batched else scores[0]


def _arrays(*arguments: Any) -> tuple[Any, ...]:
    """JAX arrays of all if one is traced, else NumPy arrays; None stays."""
    traced = any(isinstance(x, jax.core.Tracer) for x in arguments)
    asarray = jnp.asarray if traced else np.asarray
    return tuple(None if x is None else asarray(x) for x in arguments)


def _score(
    score: Callable[[Any, Any], Array],
    reference: Any,
    estimate: Any,
    lengths: Any,
    batched: bool,
    filter_length: int,
) -> Any:
    """Check the arguments and score them: traced in one go, else group by group in float64.

    Args:
        score: from two signals (U, S, n'), zero after their ends, to scores (..., U, S).
        reference: (S, n), or (U, S, n) if batched, from ``_arrays`` as all three are.
        estimate: same shape.
        lengths: (U,) or None.
        batched: whether there is an axis of utterances.
        filter_length: L, which sets the block that n' is a multiple of.

    Returns:
        (..., U, S).
    """
    _check_shapes(reference, estimate, lengths, batched)
    pair = (reference, estimate) if batched else (reference[None], estimate[None])
    num_utterances, _, num_samples = pair[0].shape
    if lengths is None:
        lengths = np.full(num_utterances, num_samples)
    hop = _block_sizes(filter_length)[1]
    if isinstance(reference, Array):
        kind = np.result_type(*(x.dtype for x in pair), np.float32)
        valid = jnp.arange(num_samples)[None, None, :] < jnp.asarray(lengths, int)[:, None, None]
        padding = ((0, 0), (0, 0), (0, -num_samples % hop))
        return score(*(jnp.pad(jnp.where(valid, x, 0).astype(kind), padding) for x in pair))
    _check_values(*pair, lengths)
    device = _device()
    count = 1 if num_utterances == 1 else _GROUP[device.platform]
    scores = []
    # Only where a trace runs: in this context jax 0.7 cannot lower a scan.
    is_traced = isinstance(jnp.zeros(()), jax.core.Tracer)
    now = jax.ensure_compile_time_eval() if is_traced else contextlib.nullcontext()
    with now, _enable_x64(True), jax.default_device(device):
        for start in range(0, num_utterances, count):
            group = slice(start, start + count)
            valid = lengths[group]
            found = score(*(_padded(x[group], valid, hop, count) for x in pair))
            scores.append(np.asarray(found)[..., : len(valid), :])
    return np.concatenate(scores, axis=-2)


def _device() -> jax.Device:
    """The default device, or the CPU where that has no float64."""
    device = jax.config.jax_default_device or jax.devices()[0]  # type: ignore[attr-defined]
    if isinstance(device, str):
        device = jax.devices(device)[0]
    return device if device.platform in _GROUP else jax.devices("cpu")[0]


def _check_shapes(reference: Any, estimate: Any, lengths: Any, batched: bool) -> None:
    """Raise ValueError unless shapes and types fit."""
    for name, signal in (("reference", reference), ("estimate", estimate)):
        if not jnp.issubdtype(signal.dtype, jnp.floating):
            raise ValueError(f"{name} has type {signal.dtype}: give floating point samples")
    if estimate.shape != reference.shape:
        raise ValueError(
            f"estimate has shape {estimate.shape}: it must have the shape of reference, "
            f"{reference.shape}"
        )
    if 0 in reference.shape:
        raise ValueError(f"reference is empty, shape {reference.shape}")
    if lengths is None:
        return
    if not batched:
        raise ValueError("lengths is only for a batch of utterances: cut the signals instead")
    if lengths.shape != reference.shape[:1] or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"lengths has shape {lengths.shape} and type {lengths.dtype}: give one integer for "
            f"each of the {len(reference)} utterances"
        )


def _check_values(reference: np.ndarray, estimate: np.ndarray, lengths: np.ndarray) -> None:
    """Raise ValueError unless the lengths fit and every signal is finite and audible."""
    num_samples = reference.shape[-1]
    for index in np.flatnonzero((lengths < 1) | (lengths > num_samples)):
        raise ValueError(
            f"lengths of utterance {index} is {lengths[index]}: give 1 to {num_samples} samples"
        )
    problems: dict[str, Callable[[np.ndarray], Any]] = {
        "has samples that are not finite: clean it first": lambda x: ~np.isfinite(x).all(-1),
        "is silent: BSS_Eval and SI-SDR have no value for it, leave it out": lambda x: ~x.any(-1),
    }
    for utterance, length in enumerate(lengths):
        for name, signals in (("reference", reference), ("estimate", estimate)):
            for problem, found in problems.items():
                for source in np.flatnonzero(found(signals[utterance, :, :length])):
                    raise ValueError(f"{name}, utterance {utterance}, source {source}, {problem}")


def _padded(signal: np.ndarray, lengths: np.ndarray, hop: int, count: int) -> np.ndarray:
    """Fill a group up to a shape that few others have, so that ragged data compiles a few times.

    Args:
        signal: (U, S, n).
        lengths: (U,) valid samples.
        hop: samples of a block, which n' is a multiple of.
        count: U' >= U; the first utterance fills the places that are not used.

    Returns:
        (U', S, n') float64, n' a number of blocks with at most two significant bits.
    """
    blocks = -(-int(lengths.max()) // hop)
    step = 1 << max(0, blocks.bit_length() - 2)
    padded = np.zeros((count, signal.shape[1], -(-blocks // step) * step * hop))
    for utterance, length in enumerate(lengths):
        padded[utterance, :, :length] = signal[utterance, :, :length]
    padded[len(signal) :] = padded[0]
    return padded


def _block_sizes(filter_length: int) -> tuple[int, int]:
    """Transform length and hop: a block of ``hop`` samples and filter_length - 1 on either side."""
    num_fft = max(1024, 1 << (16 * filter_length - 1).bit_length())
    return num_fft, num_fft - 2 * (filter_length - 1)


@partial(jax.jit, static_argnames="filter_length")
def _correlate(reference: Array, estimate: Array, filter_length: int) -> tuple[Array, ...]:
    """All that the scores need of signals (U, S, n); compiled for every padded n.

    Returns:
        gain: (U, S) of each estimate's source, all signals scaled to unit energy.
        energy: (U, S) of the rest of each estimate.
        auto: (S, S, L, U) correlations of the sources, as ``_projected_energy`` reads them.
        cross: (S, S, L, U) correlations of the rest of each estimate with the sources.
    """
    reference, gain, rest = _split(reference, estimate)
    pairs = (reference, rest)
    lags = jax.lax.map(lambda pair: _correlations(pair[0], pair[1], filter_length), pairs)
    auto, cross = (jnp.moveaxis(x, 0, -1) for x in lags)
    return gain, jnp.sum(rest**2, axis=-1), auto, cross


@jax.jit
def _bss_scores(gain: Array, energy: Array, auto: Array, cross: Array) -> Array:
    """SDR, SIR and SAR, stacked (3, U, S), from what ``_correlate`` returns."""
    by_all = _projected_energy(auto, cross).T
    by_own = _projected_energy(_own(auto), _own(cross)).reshape(gain.shape[::-1]).T
    # The gain is a least-squares one only up to rounding: keep the inner product that remains.
    scaled = gain**2 + 2 * gain * jnp.diagonal(cross[:, :, 0])
    interference = by_all - by_own if gain.shape[1] > 1 else jnp.zeros_like(gain)
    return jnp.stack(
        [
            _decibels(scaled + by_own, energy - by_own),
            _decibels(scaled + by_own, interference),
            _decibels(scaled + by_all, energy - by_all),
        ]
    )


@jax.jit
def _si_sdr(reference: Array, estimate: Array) -> Array:
    """SI-SDR (...) of signals (..., n)."""
    gain, rest = _split(reference, estimate)[1:]
    return _decibels(gain**2, jnp.sum(rest**2, axis=-1))


def _split(reference: Array, estimate: Array) -> tuple[Array, Array, Array]:
    """Source s, gain a and rest r of an estimate e = a s + r, with s and e scaled to unit energy.

    Args:
        reference: (..., n).
        estimate: (..., n).

    Returns:
        (..., n), (...) and (..., n).
    """
    reference = reference / _norm(reference)
    estimate = estimate / _norm(estimate)
    gain = jnp.sum(reference * estimate, axis=-1)
    return reference, gain, estimate - gain[..., None] * reference


def _norm(signals: Array) -> Array:
    """Euclidean norm along time, which stays as an axis; safe for very small samples."""
    # The peak cancels, so it needs no gradient.
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(signals), axis=-1, keepdims=True))
    return peak * jnp.sqrt(jnp.sum((signals / peak) ** 2, axis=-1, keepdims=True))


def _decibels(numerator: Array, denominator: Array) -> Array:
    """Ratio of energies in dB; infinite where roundings left nothing of the denominator."""

    def log(energy: Array) -> Array:
        # The inner choice keeps the gradient finite where nothing is left.
        return jnp.where(energy > 0, jnp.log10(jnp.where(energy > 0, energy, 1)), -jnp.inf)

    return 10 * (log(numerator) - log(denominator))


def _own(lags: Array) -> Array:
    """The diagonal of (S, S, L, U) as S U systems of one source: (1, 1, L, S U)."""
    diagonal = jnp.moveaxis(jnp.diagonal(lags), -1, 1)
    return diagonal.reshape(1, 1, lags.shape[2], -1)


def _correlations(reference: Array, rest: Array, filter_length: int) -> tuple[Array, Array]:
    """Correlations of one utterance at lags 0 to L - 1.

    Args:
        reference: (S, n).
        rest: (S, n), what is to be projected.
        filter_length: L.

    Returns:
        auto: (S, S, L), auto[i, j, l] = sum_t s_i[t + l] s_j[t].
        cross: (S, S, L), cross[k, i, l] = sum_t r_k[t] s_i[t - l].
    """
    num_fft, hop = _block_sizes(filter_length)
    edge, num_sources = filter_length - 1, len(reference)
    blocks = jnp.concatenate([reference, rest]).reshape(2 * num_sources, -1, hop)
    blocks = jnp.pad(blocks, ((0, 0), (0, 0), (edge, edge)))
    around = blocks[:num_sources]
    if edge:
        tails = jnp.roll(around[..., -2 * edge : -edge], 1, axis=1).at[:, 0].set(0)
        heads = jnp.roll(around[..., edge : 2 * edge], -1, axis=1).at[:, -1].set(0)
        around = around.at[..., :edge].set(tails).at[..., -edge:].set(heads)
    spectra, context = jnp.fft.rfft(blocks), jnp.fft.rfft(around)
    product = jnp.sum(jnp.conj(spectra)[:, None] * context[None], axis=2)
    auto = jnp.fft.irfft(jnp.swapaxes(product[:num_sources], 0, 1), num_fft)
    cross = jnp.fft.irfft(jnp.conj(product[num_sources:]), num_fft)
    return auto[..., :filter_length], cross[..., :filter_length]


def _projected_energy(auto: Array, cross: Array) -> Array:
    """Energy of projections onto L delayed copies of S signals, by block Schur recursion.

    The copies become an orthogonal basis, S at a time. At delay m, ``backward`` is what delays
    0 to m - 1 leave of the copies of delay m, ``forward`` what delays 1 to m leave of the copies
    of delay 0, and ``rest`` what delays 0 to m - 1 leave of the K signals. The state holds their
    inner products with the copies of delay m + i, i = 0, 1, ...; those of one delay more follow
    from them. Valid entries become fewer by one a step, so later stages carry shorter arrays.

    Args:
        auto: (S, S, L, U), auto[i, j, l] = sum_t s_i[t + l] s_j[t].
        cross: (K, S, L, U), inner products of K signals and the copies of delay l.

    Returns:
        (K, U) energies.
    """
    length = auto.shape[2]
    energy = jnp.zeros((cross.shape[0], cross.shape[3]), cross.dtype)
    products, energies = (auto, auto, cross), (auto[:, :, :1], energy)
    for stage in range(_STAGES):
        start, stop = (length * k // _STAGES for k in (stage, stage + 1))
        left, right, outer = (x[:, :, : length - start] for x in products)
        state = (left, right, outer), energies
        products, energies = jax.lax.scan(_add_delay, state, None, stop - start)[0]
    return energies[1]


def _add_delay(state, _):
    """One step of the recursion: the copies of one more delay join the basis."""
    (forward, backward, rest), (forward_energy, energy) = state
    next_forward = _shift(forward)
    inner, ahead = rest[:, :, :1], next_forward[:, :, :1]
    behind = jnp.swapaxes(ahead, 0, 1)
    inverse = _inverse(backward[:, :, :1])
    onto = _product(inner, inverse)
    forward_gain = _product(ahead, inverse)
    backward_gain = _product(behind, _inverse(forward_energy))
    products = (
        next_forward - _product(forward_gain, backward),
        backward - _product(backward_gain, next_forward),
        _shift(rest) - _product(onto, _shift(backward)),
    )
    forward_energy = forward_energy - _product(forward_gain, behind)
    return (products, (forward_energy, energy + jnp.sum(onto * inner, axis=(1, 2)))), None


def _shift(products: Array) -> Array:
    """Entry i becomes entry i + 1, and the last one zero, which no later step reads."""
    return jnp.concatenate([products[:, :, 1:], jnp.zeros_like(products[:, :, :1])], axis=2)


def _product(left: Array, right: Array) -> Array:
    """Matrix products (A, B, 1 or L, U) by (B, C, 1 or L, U), one for each of the last indices."""
    terms = [left[:, i, None] * right[None, i] for i in range(right.shape[0])]
    return sum(terms[1:], start=terms[0])


def _inverse(matrix: Array) -> Array:
    """Inverses of positive matrices (S, S, 1, U); dependent rows and columns become zero."""
    for i in range(matrix.shape[0]):
        pivot = matrix[i, i]
        kept = pivot > _DEPENDENT * jnp.finfo(pivot.dtype).eps
        scale = jnp.where(kept, 1 / jnp.where(kept, pivot, 1), 0)
        row, column = matrix[i] * scale[None], matrix[:, i] * scale[None]
        swept = matrix - column[:, None] * matrix[i][None]
        matrix = swept.at[i].set(row).at[:, i].set(column).at[i, i].set(-scale)
    return -matrix

"""What the paper's experiments share: models, networks and systems, each made once and cached.

Letters: N dictionary frames, D features, L bits, W = ceil(L / 32) words, F bins, K neighbours.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from blsh_jax import (
    codes,
    evaluation,
    masks,
    networks,
    noise_tracking,
    separation,
    spectra,
    training,
)
from blsh_jax import config as configs
from blsh_jax.config import EvidenceConfig, FeatureConfig, FitConfig, NetworkConfig, TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import System
from blsh_jax.model import Model
from blsh_jax.networks import Network
from blsh_jax.separation import Dictionary, SpectralDictionary
from blsh_jax.training import FrameSample
from experiments.cache import Cache, digest, fingerprint
from experiments.protocol import Protocol

_LSH_STREAM, _NETWORK_STREAM = 1, 2
MEL = FeatureConfig("mel")
SpectrumMask = Callable[[Array], Array]
"""Mixture spectra (U, T, F) complex64 to masks (U, T, F) float32 in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Workbench:
    """One configuration on one protocol.

    Attributes:
        protocol: the mixtures.
        config: transform, features, dictionary, how BLSH is fitted.
        cache: where results are kept.
    """

    protocol: Protocol
    config: TrainConfig
    cache: Cache

    @functools.cached_property
    def training_set(self) -> str:
        """Names the training mixtures in cached results."""
        return digest(fingerprint(self.protocol.train))

    def settings(self, **more: Any) -> dict[str, Any]:
        """What a cached result of the training mixtures depends on."""
        names = ("stft", "features", "dictionary_fraction", "lowest_speech_hz", "seed")
        config = configs.to_dict(self.config)
        return {name: config[name] for name in names} | {"train": self.training_set} | more

    @functools.cached_property
    def sample(self) -> FrameSample:
        """The dictionary's frames and what belongs to them."""

        def make() -> dict[str, np.ndarray]:
            drawn = training.sample_frames(self.protocol.train, self.config, progress=True)
            return drawn._asdict() | {"num_seen": np.int64(drawn.num_seen)}

        arrays = self.cache.arrays("frames", self.settings(), make)
        return FrameSample(**arrays | {"num_seen": int(arrays["num_seen"])})  # type: ignore[arg-type]

    def fit_settings(self, fit: FitConfig) -> dict[str, Any]:
        """What projections depend on besides."""
        return configs.to_dict(fit) | {
            "max_fit_frames": self.config.max_fit_frames,
            "max_dictionary_frames": self.config.max_dictionary_frames,
            "learner": self.config.learner,
            "refine": configs.to_dict(self.config.refine),
        }

    def model(self, fit: FitConfig) -> Model:
        """BLSH, fitted in one way, with the dictionary's frames."""
        config = dataclasses.replace(self.config, fit=fit)
        make = lambda: training.learn(self.sample, config, self.protocol.sources, progress=True)[0]
        trained = self.cache.model(self.settings(fit=self.fit_settings(fit)), make)
        frames = self.sample.frames[: trained.dictionary.num_frames]
        return dataclasses.replace(trained, frames=frames.astype(np.float16))

    def network(self, config: NetworkConfig) -> Network:
        """A network, trained on the same mixtures, early-stopped on the closed set."""
        stft, features, seed = self.config.stft, self.config.features, self.config.seed
        closed = self.protocol.tests["closed"]

        def make() -> dict[str, np.ndarray]:
            segments, validation = (
                networks.cut_segments(
                    part, stft, features, config, seed, self.config.lowest_speech_hz, progress=True
                )
                for part in (self.protocol.train, closed)
            )
            key = jax.random.fold_in(jax.random.key(seed), _NETWORK_STREAM)
            trained, info = networks.train(
                segments, validation, stft.num_bins, config, key, progress=True
            )
            print(
                f"{config.kind}: epoch {info.best_epoch + 1} of {len(info.validation_loss)}, "
                f"validation loss {info.validation_loss[info.best_epoch]:.4f}"
            )
            return networks.to_arrays(trained)

        settings = self.settings(network=configs.to_dict(config), closed=fingerprint(closed))
        num_features = spectra.num_features(features, stft)
        arrays = self.cache.arrays(config.kind, settings, make)
        return networks.from_arrays(arrays, num_features, stft.num_bins, config)

    def score(self, name: str, system: System, mixtures: Mixtures, settings: Any) -> dict[str, Any]:
        """A row of ``evaluation.evaluate`` and the seconds per minute of audio; cached."""

        def make() -> dict[str, Any]:
            print(f"{name}: {system.method} {system.num_bits or ''}", flush=True)
            row = evaluation.evaluate([system], mixtures)[0]
            minutes = float(mixtures.lengths.sum()) / self.config.stft.sample_rate / 60
            return row | {"seconds_per_minute": row["seconds"] / minutes}

        described = self.settings(
            system=[system.method, system.num_bits],
            mixtures=fingerprint(mixtures),
            neighbors=self.config.num_neighbors,
            evidence=configs.to_dict(self.config.evidence),
            settings=settings,
        )
        return self.cache.record("scores", described, make)


def random_hasher(seed: int, num_bits: int, frames: Array, draw: int = 0, centered: bool = True):
    """Hash functions of LSH; every draw is another one."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _LSH_STREAM), draw)
    return codes.random_hasher(key, num_bits, frames, centered)


def random_dictionary(
    model: Model, num_bits: int, seed: int, draw: int = 0, centered: bool = True
) -> Dictionary:
    """The dictionary's frames under hash functions of LSH."""
    spectral = model.spectral_dictionary()
    hasher = random_hasher(seed, num_bits, spectral.frames, draw, centered)
    encoded = codes.encode(hasher, spectral.frames)
    return Dictionary(hasher, encoded, spectral.masks, spectral.num_bins)


def mel_dictionary(model: Model) -> SpectralDictionary:
    """The dictionary's frames as mel magnitudes; a frame's own level drops out of both."""
    spectral = model.spectral_dictionary()
    filters = jnp.asarray(spectra.mel_filters(MEL.num_mels, model.config.stft), jnp.float32)
    mel = jnp.matmul(spectral.frames, filters, precision=jax.lax.Precision.HIGHEST)
    return dataclasses.replace(spectral, frames=spectra.unit_norm(mel))


def searching(
    method: str,
    num_bits: int | None,
    dictionary: Dictionary | SpectralDictionary,
    config: TrainConfig,
    features: FeatureConfig,
) -> System:
    """A system that searches a dictionary."""

    def call(apply):
        return lambda speech, noise: apply(
            speech + noise,
            dictionary,
            config.stft,
            features,
            config.num_neighbors,
            config.evidence,
        )

    return System(method, num_bits, call(separation.separate), call(separation.separation_masks))


def predicting(method: str, network: Network, config: TrainConfig) -> System:
    """A system that asks a network."""

    def call(apply):
        return lambda speech, noise: apply(
            speech + noise, network, config.stft, config.features, config.evidence
        )

    return System(method, None, call(networks.separate), call(networks.separation_masks))


def masking(
    method: str,
    num_bits: int | None,
    mask: SpectrumMask,
    config: TrainConfig,
    evidence: EvidenceConfig,
    least_gain: float = 0.0,
) -> System:
    """A system that makes a mask of the mixture's spectrum and joins it with the evidence."""

    def estimate(speech: Array, noise: Array) -> Array:
        spectrum = _heard(speech + noise, config)
        return _applied(mask(spectrum), spectrum, speech.shape[-1], evidence, least_gain, config)

    return System(method, num_bits, estimate)


# Jitted apart, as most systems share them: what is compiled once serves all.


@functools.partial(jax.jit, static_argnames="config")
def _heard(mixtures: Array, config: TrainConfig) -> Array:
    return spectra.heard(mixtures, config.features, config.stft)


@functools.partial(jax.jit, static_argnames=("num_samples", "evidence", "least_gain", "config"))
def _applied(
    mask: Array,
    spectrum: Array,
    num_samples: int,
    evidence: EvidenceConfig,
    least_gain: float,
    config: TrainConfig,
) -> Array:
    joined, _ = noise_tracking.join(mask, spectrum, evidence, config.stft)
    masked = masks.apply_mask(jnp.maximum(joined, least_gain), spectrum)
    return spectra.unheard(masked, num_samples, config.features, config.stft)

"""What the paper's experiments share: models, networks and systems, each made once and cached.

Letters: N dictionary frames, D features, L bits, W = ceil(L / 32) words, F bins, K neighbours.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blsh_jax import config as configs
from blsh_jax import evaluation, training
from blsh_jax.config import FeatureConfig, FitConfig, NetworkConfig, TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import System, networks
from blsh_jax.evaluation.networks import Network
from blsh_jax.models import Model
from blsh_jax.paper import spectra
from blsh_jax.paper.separation import SpectralDictionary
from blsh_jax.robust.features import feature_function
from blsh_jax.training import FrameSample
from experiments.cache import Cache, digest, fingerprint
from experiments.protocol import Protocol

_NETWORK_STREAM = 2
MEL = FeatureConfig("mel")


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
        config = configs.to_dict(self.config)
        described = {name: config["separation"][name] for name in ("stft", "features")}
        described |= {n: config[n] for n in ("dictionary_fraction", "high_pass_hz", "seed")}
        return described | {"train": self.training_set} | more

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
        names = ("max_fit_frames", "max_dictionary_frames", "target_vectors", "fine_tuning")
        config = configs.to_dict(self.config)
        return configs.to_dict(fit) | {name: config[name] for name in names}

    def model(self, fit: FitConfig) -> Model:
        """BLSH, fitted in one way, with the dictionary's frames."""
        config = dataclasses.replace(self.config, fit=fit)
        make = lambda: training.learn(self.sample, config, self.protocol.sources, progress=True)[0]
        trained = self.cache.model(self.settings(fit=self.fit_settings(fit)), make)
        frames = self.sample.frames[: trained.dictionary.num_frames]
        return dataclasses.replace(trained, frames=frames.astype(np.float16))

    def network(self, config: NetworkConfig) -> Network:
        """A network, trained on the same mixtures, early-stopped on the closed set."""
        used, closed = self.config.separation, self.protocol.tests["closed"]
        num_bins = used.stft.num_bins

        def make() -> dict[str, np.ndarray]:
            segments, validation = (
                networks.cut_segments(part, self.config, config, progress=True)
                for part in (self.protocol.train, closed)
            )
            key = jax.random.fold_in(jax.random.key(self.config.seed), _NETWORK_STREAM)
            trained, info = networks.train(
                segments, validation, num_bins, config, key, progress=True
            )
            print(
                f"{config.kind}: epoch {info.best_epoch + 1} of {len(info.validation_loss)}, "
                f"validation loss {info.validation_loss[info.best_epoch]:.4f}"
            )
            return networks.to_arrays(trained)

        settings = self.settings(network=configs.to_dict(config), closed=fingerprint(closed))
        num_features = feature_function(used.features, used.stft).size
        arrays = self.cache.arrays(config.kind, settings, make)
        return networks.from_arrays(arrays, num_features, num_bins, config)

    def score(self, name: str, system: System, mixtures: Mixtures, settings: Any) -> dict[str, Any]:
        """A row of ``evaluation.evaluate`` and the seconds per minute of audio; cached."""

        def make() -> dict[str, Any]:
            print(f"{name}: {system.method} {system.num_bits or ''}", flush=True)
            row = evaluation.evaluate([system], mixtures)[0]
            minutes = float(mixtures.lengths.sum()) / self.config.separation.stft.sample_rate / 60
            return row | {"seconds_per_minute": row["seconds"] / minutes}

        described = self.settings(
            system=[system.method, system.num_bits],
            mixtures=fingerprint(mixtures),
            separation=configs.to_dict(self.config.separation),
            settings=settings,
        )
        return self.cache.record("scores", described, make)


def mel_dictionary(model: Model) -> SpectralDictionary:
    """The dictionary's frames as mel magnitudes; a frame's own level drops out of both."""
    spectral = model.spectral_dictionary()
    filters = jnp.asarray(spectra.mel_filters(MEL.num_mels, model.separation.stft), jnp.float32)
    mel = jnp.matmul(spectral.frames, filters, precision=jax.lax.Precision.HIGHEST)
    return dataclasses.replace(spectral, frames=spectra.unit_norm(mel))

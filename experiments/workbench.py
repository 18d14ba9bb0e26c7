"""What the paper's experiments share: models, networks and systems, each made once and cached.

Letters: N dictionary frames, D features, L bits, W = ceil(L / 32) words, F bins, K neighbours.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from blsh_jax import config as configs
from blsh_jax import evaluation, training
from blsh_jax.config import FeatureConfig, FitConfig, NetworkConfig, TrainConfig
from blsh_jax.corpora import Mixtures
from blsh_jax.evaluation import System, networks, random_dictionary
from blsh_jax.evaluation.networks import MaskPredictor, Network
from blsh_jax.models import Model
from blsh_jax.paper import spectra
from blsh_jax.paper.separation import Dictionary, SpectralDictionary
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
        closed, num_bins = self.protocol.tests["closed"], self.config.separation.stft.num_bins

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
            return flatten_dict(trained.parameters, sep="/")

        settings = self.settings(network=configs.to_dict(config), closed=fingerprint(closed))
        arrays = self.cache.arrays(config.kind, settings, make)
        return Network(MaskPredictor(num_bins, config), unflatten_dict(arrays, sep="/"))

    def hashed(
        self, method: str, length: int, fit: FitConfig | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        """The dictionary under L hash functions, and the settings that they depend on besides.

        Args:
            method: ``lsh``, ``lsh_origin``, or a name of BLSH.
            length: L.
            fit: how BLSH is fitted, if not as configured.
        """
        fit = fit or self.config.fit
        model = self.model(fit)
        if method in ("lsh", "lsh_origin"):
            made = random_dictionary(model, length, self.config.seed, centered=method == "lsh")
            return made, {"longest": length}
        return model.dictionary.prefix(length), self.fit_settings(fit)

    def scores(self, system: System, settings: Any) -> list[dict[str, Any]]:
        """A row of ``evaluation.evaluate`` for each test set, with its name; cached.

        Args:
            system: what is scored; its seconds per minute of audio are in the rows.
            settings: what it depends on beyond the workbench's.
        """
        rows = []
        for name, mixtures in self.protocol.tests.items():
            described = self.settings(
                system=[system.method, system.num_bits],
                mixtures=fingerprint(mixtures),
                separation=configs.to_dict(self.config.separation),
                settings=settings,
            )
            make = functools.partial(self._score, name, system, mixtures)
            rows.append({"set": name} | self.cache.record("scores", described, make))
        return rows

    def _score(self, name: str, system: System, mixtures: Mixtures) -> dict[str, Any]:
        print(f"{name}: {system.method} {system.num_bits or ''}", flush=True)
        row = evaluation.evaluate([system], mixtures)[0]
        minutes = float(mixtures.lengths.sum()) / self.config.separation.stft.sample_rate / 60
        return row | {"seconds_per_minute": row["seconds"] / minutes}


def mel_dictionary(model: Model) -> SpectralDictionary:
    """The dictionary's frames as mel magnitudes; a frame's own level drops out of both."""
    spectral = model.spectral_dictionary()
    filters = jnp.asarray(spectra.mel_filters(MEL.num_mels, model.separation.stft), jnp.float32)
    mel = jnp.matmul(spectral.frames, filters, precision=jax.lax.Precision.HIGHEST)
    return dataclasses.replace(spectral, frames=spectra.unit_norm(mel))

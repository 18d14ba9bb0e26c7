import dataclasses

import pytest

from blsh_jax import config


def test_dictionaries_restore_every_setting():
    changed = config.TrainConfig(
        separation=config.SeparationConfig(features=config.FeatureConfig("log_mel", 40, 3)),
        fit=config.FitConfig(num_bits=7, target="cosine"),
        snr_db=5.0,
    )
    assert config.from_dict(config.TrainConfig, config.to_dict(changed)) == changed


def test_unknown_settings_are_named():
    values = config.to_dict(config.TrainConfig())
    values["separation"]["stft"]["windw"] = 3
    with pytest.raises(ValueError, match="StftConfig has no setting windw"):
        config.from_dict(config.TrainConfig, values)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (config.FeatureConfig, "kind", "mfcc"),
        (config.FitConfig, "target", "linear"),
        (config.FitConfig, "sigma2", 0.0),
        (config.SeparationConfig, "num_neighbors", 0),
        (config.TrainConfig, "dictionary_fraction", 0.0),
        (config.TrainConfig, "held_back", 1.0),
        (config.TrainConfig, "max_fit_frames", -5),
        (config.TrainConfig, "max_dictionary_frames", -1),
        (config.TrainConfig, "target_vectors", "masks"),
        (config.NetworkConfig, "dropout", 1.0),
        (config.NetworkConfig, "kind", "gru"),
    ],
)
def test_bad_values_name_the_setting(kind, name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(kind(), **{name: value})

import dataclasses

import pytest

from blsh_jax import config


def test_dictionaries_restore_every_setting():
    changed = config.TrainConfig(
        features=config.FeatureConfig("log_mel", 40, 3),
        fit=config.FitConfig(num_bits=7, target="cosine"),
        snr_db=5.0,
    )
    assert config.from_dict(config.TrainConfig, config.to_dict(changed)) == changed


def test_unknown_settings_are_named():
    values = config.to_dict(config.TrainConfig())
    values["stft"]["windw"] = 3
    with pytest.raises(ValueError, match="StftConfig has no setting windw"):
        config.from_dict(config.TrainConfig, values)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (config.FeatureConfig, "kind", "mfcc"),
        (config.FitConfig, "target", "linear"),
        (config.FitConfig, "sigma2", 0.0),
        (config.TrainConfig, "dictionary_fraction", 0.0),
        (config.TrainConfig, "held_back", 1.0),
        (config.TrainConfig, "num_neighbors", 0),
        (config.TrainConfig, "max_fit_frames", -5),
    ],
)
def test_bad_values_name_the_setting(kind, name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(kind(), **{name: value})

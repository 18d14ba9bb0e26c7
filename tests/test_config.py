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


NEGATIVE = {
    config.FeatureConfig: "levels floor_frames voicing pre_roll_frames",
    config.FineTuningConfig: "fine_tuning_steps fine_tuning_queries fine_tuning_learning_rate",
    config.AugmentationConfig: "num_mixtures mixture_seconds max_speed synthetic_noise unaugmented",
    config.FernConfig: "num_ferns fern_bits fern_rate fern_samples fern_mixtures fern_bins",
    config.SpeechPresenceConfig: "mask_weight_low snr_weight_high past_snr_weight_low lowest_hz",
    config.TrainConfig: "max_fit_frames max_dictionary_frames",
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((kind, name, -1) for kind, names in NEGATIVE.items() for name in names.split()),
        (config.StftConfig, "hop_length", 300),
        (config.FeatureConfig, "kind", "mfcc"),
        (config.FeatureConfig, "context", 2),
        (config.FitConfig, "target", "linear"),
        (config.FitConfig, "sigma2", 0.0),
        (config.NetworkConfig, "dropout", 1.0),
        (config.NetworkConfig, "kind", "gru"),
        (config.StftConfig, "sample_rate", 10**6),
        (config.StftConfig, "window_length", 2**30),
        (config.StftConfig, "hop_length", 4),
        (config.FeatureConfig, "num_mels", 10**6),
        (config.FeatureConfig, "levels", 2.0),
        (config.SeparationConfig, "num_neighbors", True),
        (config.SpeechPresenceConfig, "snr_weight_low", 1e9),
        (config.FitConfig, "sigma2", float("nan")),
        (config.TrainConfig, "snr_db", 10**400),
        (config.TrainConfig, "separation", {}),
        (config.AugmentationConfig, "min_snr_db", 7.0),
        (config.AugmentationConfig, "second_noise", 1.5),
        (config.AugmentationConfig, "noise_folds", 0),
        (config.FernConfig, "num_ferns", 4097),
        (config.FernConfig, "fern_bits", 13),
        (config.FernConfig, "fern_ridge", 0.0),  # of an empty leaf 0 / 0
        (config.SeparationConfig, "num_neighbors", 0),
        (config.TrainConfig, "dictionary_fraction", 0.0),
        (config.TrainConfig, "held_back", 1.0),
        (config.TrainConfig, "target_vectors", "masks"),
    ],
)
def test_bad_values_name_the_setting(kind, name, value):
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})

"""Score a model and what it is compared with on recordings.

    blsh evaluate --model model.npz --speech DIR --noise DIR --output scores.json

Prints a table of SDR, SIR, SAR and SI-SDR in dB, means weighted by utterance length as published,
and writes it with configuration, versions and device. --part closed takes the held-back last part
of each utterance: with the training corpora that is the closed test set. --report writes a page to
hear and see it: players, spectrograms, masks, self-similarity matrices and scores in one file.
"""

from absl import flags

from blsh_jax import config as configs
from blsh_jax import corpora, evaluation, models
from blsh_jax.commands import launch
from blsh_jax.models import Model

_COLUMNS = ["method", "num_bits", "sdr", "sir", "sar", "si_sdr", "sdr_std", "utterances", "seconds"]


def _define_flags() -> None:
    flags.DEFINE_string(
        "model",
        None,
        "Model file of blsh train, or a pretrained model by name.",
        required=True,
    )
    launch.define_corpora()
    launch.define_output("Record to write (.json).")
    launch.define_output("Page to write (.html), with sounds of two mixtures.", ".html", "report")
    launch.define_choices(
        "methods",
        evaluation.METHODS,
        "Which systems to compare; by default all that the model holds enough for.",
    )
    launch.define_lengths("num_bits", [25, 50, 150])
    flags.DEFINE_enum("part", "whole", ["whole", "closed"], "Whole utterances, or held-back parts.")
    flags.DEFINE_enum("scorer", "blsh_jax", list(evaluation.SCORERS), "Whose BSS_Eval.")
    text = "Signal-to-noise ratio of the mixtures, in dB."
    flags.DEFINE_float("snr_db", 0.0, text, lower_bound=-100.0, upper_bound=100.0)
    flags.DEFINE_integer(
        "max_mixtures", None, "Score a random choice of this many, noises in turn.", lower_bound=1
    )
    text = "Seed of noise offsets, choice of mixtures, LSH projections."
    flags.DEFINE_integer("seed", 1, text, lower_bound=0)


def main() -> None:
    """Flags, library, record."""
    values = flags.FLAGS
    if values.report:  # its extra, if it is missing, is named before any work
        from blsh_jax.evaluation import result_page
    trained = models.load_named(values.model)
    num_bits = launch.lengths("num_bits", trained.hasher.num_bits)
    methods = _methods(trained)
    speech, noise = launch.recordings(trained.config, "speech", "noise")
    mixtures = corpora.make_mixtures(
        speech,
        noise,
        values.snr_db,
        values.seed,
        part=values.part,
        held_back=trained.config.held_back,
        max_mixtures=values.max_mixtures,
    )
    corpora.report(mixtures)
    heard = {"speech": len(speech), "noise": len(noise), "mixtures": len(mixtures)}
    left_out = {"speech": len(speech.skipped), "noise": len(noise.skipped)}
    systems = evaluation.make_systems(trained, methods, num_bits, values.seed)
    rows = evaluation.evaluate(systems, mixtures, values.scorer, progress=True)
    names = ("part", "scorer", "snr_db", "max_mixtures", "seed")
    settings = {name: values[name].value for name in names}
    settings |= {"methods": methods, "num_bits": num_bits, "used": heard, "left_out": left_out}
    settings |= {"model": configs.to_dict(trained.config), "provenance": trained.provenance}
    launch.write(rows, _COLUMNS, settings)
    if values.report:
        lead = f"{len(mixtures)} mixtures at {values.snr_db:g} dB, scored by {values.scorer}."
        shown = result_page.examples(systems, mixtures, trained.separation.stft)
        result_page.write(values.report, "Separation scores", lead, rows, shown, trained)


def _methods(trained: Model) -> list[str]:
    """What the flag says; by default what is possible."""
    given = flags.FLAGS.methods
    if trained.frames is None and flags.FLAGS["methods"].using_default_value:
        return [name for name in given if name not in evaluation.NEED_FRAMES]
    return given

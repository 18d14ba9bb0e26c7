#!/usr/bin/env bash
# The paper's whole evaluation, one record after the other:
#
#     experiments/reproduce.sh SPEECH NOISE OPEN_SPEECH OPEN_NOISE OUTPUT [FLAG...]
#
# Runs from the root of the checkout, with PYTHON (python3 if it is not set). The first four are
# folders of recordings; OUTPUT gets the records. The paper's own protocol takes its open speakers
# from SPEECH: give '' for OPEN_SPEECH, and --protocol=paper.
#
# Made for an accelerator. On two CPU cores add --fc_units=256 --blstm_units=128 --max_segments=4000
# --network_epochs=12 --max_mixtures=150 (the last for table 1 alone) and give it an hour and a half.
# Intermediate results are kept in OUTPUT/cache: after an interruption, or with other flags, the same
# command recomputes only what is missing. Flags that a launch does not have are left out for it.
set -euo pipefail
if (($# < 5)); then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
speech=$1 noise=$2 open_speech=$3 open_noise=$4 output=$5
shift 5
python=${PYTHON:-python3}
closed=(--speech="$speech" --noise="$noise" --num_bits=300 --cache="$output/cache")
both=("${closed[@]}" --open_noise="$open_noise")
if [[ -n $open_speech ]]; then both+=(--open_speech="$open_speech"); fi
networks='--(fc|blstm)_(units|layers)|--max_segments|--network_epochs|--systems|--length='
counts='--max_mixtures'
common=()
for flag in "$@"; do
  [[ $flag =~ ^($networks|$counts) ]] || common+=("$flag")
done
"$python" -m experiments.table1 "${both[@]}" --output="$output/table1.json" "$@"
"$python" -m experiments.figure2 "${closed[@]}" --output="$output/figure2.json" "${common[@]}"
"$python" -m experiments.audio_examples "${both[@]}" --output="$output/audio_examples.json" \
  --folder="$output/audio_examples" "${common[@]}"
"$python" -m experiments.figure3 "${closed[@]}" --output="$output/figure3.json" "${common[@]}"
"$python" -m experiments.figure3 "${closed[@]}" --output="$output/figure3_one_draw.json" \
  --nofresh_projections "${common[@]}"
"$python" -m experiments.variations "${both[@]}" --output="$output/variations.json" "${common[@]}"

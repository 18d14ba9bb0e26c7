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
# --network_epochs=12 --max_mixtures=150 (the last for table 1 alone) and give it a night. Says what
# is done and goes on after a launch that failed. The same command again makes what is missing: a
# record that is there and was made with the same flags is kept, and intermediate results are in
# OUTPUT/cache. Flags that a launch does not have are left out for it.
set -uo pipefail
if (($# < 5)); then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
speech=$1 noise=$2 open_speech=$3 open_noise=$4 output=$5
shift 5
python=${PYTHON:-python3}
mkdir -p "$output/cache"
closed=(--speech="$speech" --noise="$noise" --cache="$output/cache")
both=("${closed[@]}" --open_noise="$open_noise")
if [[ -n $open_speech ]]; then both+=(--open_speech="$open_speech"); fi
networks='--(fc|blstm)_(units|layers)|--max_segments|--network_epochs|--systems|--length='
of_claims='--(steady_noise|lively_noise|voices|max_training_mixtures|(no)?listening)'
counts='--max_mixtures'
of_table=() of_authors=() common=()
for flag in "$@"; do
  if [[ $flag =~ ^($networks|$counts) ]]; then
    of_table+=("$flag")
  elif [[ $flag =~ ^($of_claims) ]]; then
    of_authors+=("$flag")
  else
    common+=("$flag")
  fi
done

failed=()
# make FILE LAUNCH FLAG...: a launch and its flags make a file of OUTPUT.
make() {
  local file=$1 made=$output/cache/$1.made started=$SECONDS
  local command=("$python" -m "experiments.$2" --output="$output/$file" "${@:3}")
  if [[ -f $output/$file && ${command[*]} == "$(cat "$made" 2> /dev/null)" ]]; then
    echo "== $file: kept"
  elif echo "== $file: begun at $(date +%H:%M)" && "${command[@]}"; then
    echo "${command[*]}" > "$made"
    echo "== $file: done in $(((SECONDS - started + 59) / 60)) min"
  else
    failed+=("$file")
    echo "== $file: failed"
  fi
}

long=--num_bits=300
make table1.json table1 "${both[@]}" $long "${common[@]}" "${of_table[@]}"
make figure2.json figure2 "${closed[@]}" $long "${common[@]}"
make figure3.json figure3 "${both[@]}" $long "${common[@]}"
make figure3_one_draw.json figure3 "${both[@]}" $long --nofresh_projections "${common[@]}"
make audio_examples.json audio_examples "${both[@]}" $long --folder="$output/audio_examples" \
  "${common[@]}"
make variations.json variations "${both[@]}" $long "${common[@]}"
make authors.json authors "${both[@]}" "${common[@]}" "${of_authors[@]}"
make complexity.json complexity
if [[ -n $open_speech ]]; then # a model file is of whole recordings: the protocol parts alone
  scored=(--model="$output/model.npz" --num_bits=25,50,100,150 --max_mixtures=320)
  make model.npz train "${closed[@]:0:2}" "${common[@]}"
  make closed.json evaluate "${closed[@]:0:2}" "${scored[@]}" --part=closed
  make open.json evaluate --speech="$open_speech" --noise="$open_noise" "${scored[@]}"
fi
echo "== all done but: ${failed[*]:-nothing}"
((${#failed[@]} == 0))

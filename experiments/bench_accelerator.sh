#!/usr/bin/env bash
# Check every path on the accelerator of this machine against its CPU, and time it: one record, meant
# to take less than ten minutes.
#
#     experiments/bench_accelerator.sh OUTPUT.json [FLAG...]
#
# Runs from the root of the checkout, with PYTHON (python3 if it is not set), whose JAX finds the
# accelerator (pip install 'jax[cuda12]' or 'jax[tpu]'). --sizes=small tries it anywhere.
set -euo pipefail
if (($# < 1)); then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
exec "${PYTHON:-python3}" -m experiments.bench_accelerator --output="$1" "${@:2}"

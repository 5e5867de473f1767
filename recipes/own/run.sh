#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Own classes by the network that comes with rowvit, whose blocks are trained, too, from its package to the table:
#     PROCESSES=2 bash recipes/own/run.sh DATA FOLDER CLASSES [PHOTOS]
# DATA has so many CLASSES. So many PHOTOS of it are taken, or all; FOLDER gets a package for each number.
[ $# -ge 3 ] || { echo "usage: $0 DATA FOLDER CLASSES [PHOTOS]" >&2; exit 2; }
classes=$3 photos=${4:-}
set -- "$1" "$2"
. "$(dirname "$0")/../steps.sh"
name=train${photos:+-$photos}

step start.safetensors rowvit import everyday --classes "$classes" -o start.safetensors
train "$name-float.safetensors" start.safetensors train.toml ${photos:+--photos "$photos"}
score "$name-float" "$name-float.safetensors"
quantise "$name.safetensors" "$name-float.safetensors"
score "$name" "$name.safetensors" --cycles 16 --jobs "${PROCESSES:-1}"
printed "$name.md" python "$benchmarks/accuracy.py" ${RECORD:+--record "own${SEED:+-seed-$SEED}"} "$name, float=$name-float.json" \
    "$name, int8=$name.json"

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Own classes by the network that comes with rowvit, whose blocks are trained, too, from its package to the table:
#     PROCESSES=2 bash recipes/own/run.sh DATA FOLDER CLASSES [RECIPE]
# DATA has so many CLASSES. RECIPE is train.toml, or train-500.toml or train-200.toml, which take so many of its
# photos; FOLDER gets a package of its name.
[ $# -ge 3 ] || { echo "usage: $0 DATA FOLDER CLASSES [RECIPE]" >&2; exit 2; }
classes=$3 recipe=${4:-train.toml}
set -- "$1" "$2"
. "$(dirname "$0")/../steps.sh"
name=${recipe%.toml}

step start.safetensors rowvit import everyday --classes "$classes" -o start.safetensors
train "$name-float.safetensors" start.safetensors "$recipe"
score "$name-float" "$name-float.safetensors"
quantise "$name.safetensors" "$name-float.safetensors"
score "$name" "$name.safetensors" --cycles 16 --jobs "${PROCESSES:-1}"
printed "$name.md" python "$benchmarks/accuracy.py" ${RECORD:+--record own} "$name, float=$name-float.json" \
    "$name, int8=$name.json"

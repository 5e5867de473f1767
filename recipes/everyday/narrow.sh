#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everyday photos with half of the hidden neurons, from wide.safetensors beside this file, which run.sh has made:
#     PROCESSES=2 bash recipes/everyday/narrow.sh TINY_IMAGENET FOLDER
# FOLDER is that of run.sh, or another one with its teacher.safetensors. What it gives at the end,
# everyday.safetensors, comes with rowvit.
. "$(dirname "$0")/../steps.sh"
trim=--trim
layers=1,2,3,4,5,6,7,8,9,10,11
keep=0.97,0.91,0.84,0.76,0.67,0.60,0.53,0.47,0.41,0.35,0.02  # a little more than in the training

step ours.safetensors rowvit import "$recipes/wide.safetensors" -o ours.safetensors
# without its schedule and its thresholds
step wide.safetensors rowvit prune ours.safetensors --data "$data" --layers 1 --rho 1 --rule none --max-loss 0 \
    --no-measure -o wide.safetensors
step narrow.safetensors rowvit narrow wide.safetensors --data "$data" --hidden 384 --photos 1500 --no-measure \
    -o narrow.safetensors
train narrow-pruned.safetensors narrow.safetensors narrow.toml --teacher teacher.safetensors
prune narrow-trimmed.safetensors narrow-pruned.safetensors $layers --keep $keep --max-loss 0
quantise wide-int8.safetensors wide.safetensors
quantise narrow-int8.safetensors narrow-trimmed.safetensors

score wide wide.safetensors --labels sorted --precision bf16
score wide-cycles wide-int8.safetensors --labels sorted --photos 16 --cycles 16 --rule none
score narrow narrow.safetensors --labels sorted --precision bf16
narrowed everyday-narrow "ReLU float=wide.json,wide-cycles.json"

step narrow-named.safetensors rowvit import narrow-trimmed.safetensors --class-names "$recipes/names.txt" \
    -o narrow-named.safetensors
step narrow-whole.safetensors rowvit quantise narrow-named.safetensors --data "$data" --labels sorted --no-measure \
    -o narrow-whole.safetensors
step everyday.safetensors rowvit teach "$data" --from narrow-whole.safetensors --same-head --labels sorted \
    --views 1 --photos 6000 -o everyday.safetensors
score everyday everyday.safetensors --labels sorted --cycles 16 --jobs "${PROCESSES:-1}"
printed everyday.md python "$benchmarks/accuracy.py" ${RECORD:+--record everyday-narrow} "as it comes with rowvit=everyday.json"

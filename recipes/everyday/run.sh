#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everyday photos: Tiny-ImageNet's 200 classes at 128 pixels, DeiT-Tiny's shape, from random weights to the table:
#     PROCESSES=2 bash recipes/everyday/run.sh TINY_IMAGENET FOLDER START
# START is timm:deit_tiny_patch16_224 (from its hub), or a state dict of the same network; fine-tuned, it teaches.
# Every file in FOLDER is a state to go on from: keep them together with *.state of the training that runs.
. "$(dirname "$0")/../steps.sh"
[ -n "${3:-}" ] || { echo "usage: $0 DATA FOLDER START" >&2; exit 2; }
trim=--trim
thresholds=
layers=1,2,3,4,5,6,7,8,9,10,11
drop="--keep 0.92,0.79,0.65,0.54,0.43,0.36,0.31,0.26,0.21,0.17,0.02"

step import.safetensors rowvit import "$3" --classes 200 --image-size 128 -o import.safetensors
step start.safetensors python "$recipes/../head.py" import.safetensors "$data" --photos 12000 \
    -o start.safetensors
train teacher.safetensors start.safetensors teacher.toml
step random.safetensors python "$recipes/anew.py" teacher.safetensors -o random.safetensors
train relu.safetensors random.safetensors student.toml --teacher teacher.safetensors
train fewer.safetensors relu.safetensors prune.toml --teacher teacher.safetensors
train pruned.safetensors fewer.safetensors further.toml --teacher teacher.safetensors
table $layers --precision bf16

# wide.safetensors beside this file, from which narrow.sh goes on, keeps more tokens, and is not trained with pruning:
# by a schedule that is searched.
step searched.safetensors rowvit prune relu.safetensors --data "$data" --macs-saved 45 --trim --no-measure \
    -o searched.safetensors
step named.safetensors rowvit import searched.safetensors --class-names "$recipes/names.txt" \
    --licence Apache-2.0 \
    --origin "trained for rowvit from random weights on Tiny-ImageNet's 80,000 photos (64 pixels, 200 classes),\
 taught by a DeiT-Tiny (MIT, from ImageNet) that was fine-tuned on them; small things and other classes it cannot know" \
    -o named.safetensors
step whole.safetensors rowvit quantise named.safetensors --data "$data" --labels sorted --jobs 2 -o whole.safetensors
step searched-int8.safetensors rowvit teach "$data" --from whole.safetensors --same-head --labels sorted --views 1 \
    --photos 6000 -o searched-int8.safetensors
score searched-int8 searched-int8.safetensors --labels sorted --cycles 16
printed searched-int8.md python "$benchmarks/accuracy.py" ${RECORD:+--record "everyday${SEED:+-seed-$SEED}"} "ReLU float=relu.json,relu-cycles.json" \
    "searched, int8=searched-int8.json"

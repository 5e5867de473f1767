#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CIFAR-10 by ViT-S/14 with half of the hidden neurons, from first and refit.safetensors in FOLDER, which run.sh makes
# (and compared with gelu.safetensors, if it is there):
#     PROCESSES=2 bash recipes/cifar10-vit-s14/narrow.sh CIFAR FOLDER
. "$(dirname "$0")/../steps.sh"
trim=--trim
smooth="--smooth 0.5"
layers=1,2,3,4,5,6,7,8,9,10,11
keep=1.0,0.95,0.89,0.81,0.72,0.65,0.57,0.51,0.45,0.39,0.02  # as many more than in the training as the goal leaves

step narrow.safetensors rowvit narrow refit.safetensors --data "$data" --hidden 768 --photos 1500 --no-measure \
    -o narrow.safetensors
step narrow-calm.safetensors python "$recipes/calm.py" narrow.safetensors -o narrow-calm.safetensors
train narrow-pruned.safetensors narrow-calm.safetensors narrow.toml --teacher first.safetensors
prune narrow-trimmed.safetensors narrow-pruned.safetensors $layers --keep $keep --max-loss 0
quantise narrow-int8.safetensors narrow-trimmed.safetensors

rows=()
if [ -e gelu.safetensors ]; then
    score gelu gelu.safetensors --precision bf16
    rows+=("GELU float, 5.8 epochs=gelu.json")
fi
score first first.safetensors --precision bf16
score narrow narrow.safetensors --precision bf16
narrowed cifar10-vit-s14-narrow "${rows[@]}" "GELU float, 3.4 epochs=first.json"

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The control of run.sh: its first pruned network, of as many epochs, taught by `first` instead of the ViT-S/14.
#     bash recipes/cifar10-deit-t/control.sh CIFAR FOLDER START
# FOLDER may be run.sh's: what the two have in common is made once.
# START is timm:deit_tiny_patch16_224, or a state dict, as there.
[ $# = 3 ] || { echo "usage: $0 DATA FOLDER START" >&2; exit 2; }
. "$(dirname "$0")/../steps.sh"
layers=1,2,3,4,5,6,7,8,9,10,11
trim=--trim
drop="--keep 0.93,0.81,0.67,0.56,0.45,0.38,0.32,0.27,0.22,0.18,0.02"
thresholds=

step start.safetensors rowvit import "$3" --classes 10 --image-size 128 -o start.safetensors
train first.safetensors start.safetensors gelu.toml
step refit.safetensors rowvit relu first.safetensors --data "$data" --no-measure -o refit.safetensors
train own.safetensors refit.safetensors prune.toml --teacher first.safetensors
score first first.safetensors --precision bf16
score own-image own.safetensors --rule image --precision bf16
int8 own-int8 own.safetensors $layers

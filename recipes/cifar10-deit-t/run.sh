#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CIFAR-10 at 128 pixels by DeiT-Tiny, from a network trained on ImageNet to the table:
#     bash recipes/cifar10-deit-t/run.sh CIFAR FOLDER START TEACHERS
# START is timm:deit_tiny_patch16_224 (from its hub), or a state dict of the same network; TEACHERS is the folder
# of cifar10-vit-s14, whose GELU network teaches while tokens are dropped.
[ $# = 4 ] || { echo "usage: $0 DATA FOLDER START TEACHERS" >&2; exit 2; }
teacher=$(realpath -e "$4/first.safetensors") || exit 2
. "$(dirname "$0")/../steps.sh"
trim=--trim
thresholds=
layers=1,2,3,4,5,6,7,8,9,10,11
drop="--keep 0.93,0.81,0.67,0.56,0.45,0.38,0.32,0.27,0.22,0.18,0.02"

step start.safetensors rowvit import "$3" --classes 10 --image-size 128 -o start.safetensors
train first.safetensors start.safetensors gelu.toml
train gelu.safetensors first.safetensors longer.toml
step refit.safetensors rowvit relu first.safetensors --data "$data" --no-measure -o refit.safetensors
train fewer.safetensors refit.safetensors prune.toml --teacher "$teacher"
train further.safetensors fewer.safetensors further.toml --teacher "$teacher"
train pruned.safetensors further.safetensors last.toml --teacher "$teacher"
table $layers --precision bf16

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hand signs by DeiT-Tiny, from a network trained on ImageNet to the table:
#     bash recipes/sign-digits-deit-t/run.sh sign_digits_jpeg.npz FOLDER [START]
# START is timm:deit_tiny_patch16_224 (from its hub), or a state dict of the same network.
. "$(dirname "$0")/../steps.sh"
trim=--trim
thresholds=
layers=1,2,3,4,5,6,7,8,9,10,11
drop="--keep 0.93,0.81,0.68,0.57,0.46,0.38,0.32,0.27,0.22,0.18,0.02"

step start.safetensors rowvit import "${3:-timm:deit_tiny_patch16_224}" --classes 10 -o start.safetensors
train first.safetensors start.safetensors gelu.toml
train gelu.safetensors first.safetensors longer.toml
step refit.safetensors rowvit relu first.safetensors --data "$data" --no-measure -o refit.safetensors
train pruned.safetensors refit.safetensors prune.toml --teacher gelu.safetensors
table $layers
curve 3,6,9

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hand signs by DeiT-Tiny, from a network trained on ImageNet to the table:
#     bash recipes/sign-digits-deit-t/run.sh sign_digits_jpeg.npz FOLDER [START]
# START is timm:deit_tiny_patch16_224 (from its hub), or a state dict of the same network.
. "$(dirname "$0")/../steps.sh"
layers=3,6,9

step start.safetensors rowvit import "${3:-timm:deit_tiny_patch16_224}" -o start.safetensors
train first.safetensors start.safetensors gelu.toml
train gelu.safetensors first.safetensors longer.toml
step refit.safetensors rowvit relu first.safetensors --data "$data" -o refit.safetensors
train pruned.safetensors refit.safetensors prune.toml --teacher gelu.safetensors

score gelu gelu.safetensors
score refit refit.safetensors
score none pruned.safetensors --rule none
score image pruned.safetensors --rule image
score tile pruned.safetensors --rule tile
timed refit refit.safetensors none
timed none pruned.safetensors none
timed image pruned.safetensors image
timed tile pruned.safetensors tile
int8 int8 pruned.safetensors "$layers"
score thresholds int8-float.safetensors --rule image

printed table.md python "$benchmarks/accuracy.py" "GELU float=gelu.json" \
    "ReLU float, refit only=refit.json,refit-cycles.json" "+ token pruning=none.json,none-cycles.json" \
    "+ FFN2 rule \`image\`=image.json,image-cycles.json" "+ FFN2 rule \`tile\`=tile.json,tile-cycles.json" \
    "\`image\` + thresholds=thresholds.json" "+ int8=int8.json"

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CIFAR-10 at 224 pixels, 197 tokens, by DeiT-Tiny, from a network trained on ImageNet to the table:
#     PROCESSES=2 bash recipes/cifar10-deit-t-224/run.sh CIFAR FOLDER [START]
# START is timm:deit_tiny_patch16_224 (from its hub), or a state dict of the same network.
# Every file in FOLDER is a state to go on from: keep them together with *.state of the training that runs.
. "$(dirname "$0")/../steps.sh"
trim=--trim
layers=1,2,3,4,5,6,7,8,9,10,11
drop="--keep 0.95,0.84,0.71,0.6,0.49,0.41,0.35,0.29,0.24,0.19,0.02"

step start.safetensors rowvit import "${3:-timm:deit_tiny_patch16_224}" --classes 10 -o start.safetensors
train first.safetensors start.safetensors gelu.toml
train gelu.safetensors first.safetensors longer.toml
step refit.safetensors rowvit relu gelu.safetensors --data "$data" --no-measure -o refit.safetensors
train fewer.safetensors refit.safetensors prune.toml --teacher gelu.safetensors
train pruned.safetensors fewer.safetensors further.toml --teacher gelu.safetensors
table $layers --precision bf16

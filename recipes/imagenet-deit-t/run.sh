#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# DeiT-Tiny with its ImageNet head, without any training: ReLU by the refit on photos without labels, then
# int8; the answers of each are compared.
#     bash recipes/imagenet-deit-t/run.sh PHOTOS FOLDER [START]
# START is timm:deit_tiny_patch16_224 (from its hub), or a state dict of the same network.
. "$(dirname "$0")/../steps.sh"
start=${3:-timm:deit_tiny_patch16_224}

# a state dict does not say how its network pools
step gelu.safetensors rowvit import "$start" $([ ! -e "$start" ] || echo "--pool token") -o gelu.safetensors
step relu.safetensors rowvit relu gelu.safetensors --data "$data" --no-measure -o relu.safetensors
step int8.safetensors rowvit quantise relu.safetensors --data "$data" --no-measure --smooth 0.5 --json layers.json \
    -o int8.safetensors
printed agreement.md python "$benchmarks/agreement.py" gelu.safetensors relu.safetensors int8.safetensors --data "$data"

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# DeiT-Tiny with its ImageNet head, without any training: ReLU by the refit on photos without labels, then
# int8; the answers of each are compared.
#     bash recipes/imagenet-deit-t/run.sh PHOTOS FOLDER [START]
. "$(dirname "$0")/../steps.sh"

step gelu.safetensors rowvit import "${3:-timm:deit_tiny_patch16_224}" --pool token -o gelu.safetensors
step relu.safetensors rowvit relu gelu.safetensors --data "$data" --no-measure -o relu.safetensors
step int8.safetensors rowvit quantise relu.safetensors --data "$data" --no-measure --smooth 0.5 --json layers.json \
    -o int8.safetensors
printed agreement.md python "$benchmarks/agreement.py" gelu.safetensors relu.safetensors int8.safetensors --data "$data"

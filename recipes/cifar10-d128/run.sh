#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CIFAR-10, width 128, from a float network to the table:
#     bash recipes/cifar10-d128/run.sh CIFAR FOLDER FLOAT.safetensors
. "$(dirname "$0")/../steps.sh"

step start.safetensors rowvit import "${3:?name the float network}" --heads 2 --pool token --act gelu \
    --mean 0.491255 0.482078 0.446510 --std 0.245216 0.242784 0.260627 -o start.safetensors
train gelu.safetensors start.safetensors gelu.toml
chain 1,3,4 --precision bf16

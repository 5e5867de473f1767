#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hand signs at DeiT-Tiny size, from random weights by way of CIFAR-10 to the table:
#     bash recipes/sign-digits-deit-t/run.sh sign_digits_jpeg.npz FOLDER CIFAR
. "$(dirname "$0")/../steps.sh"

step random.safetensors rowvit import timm:deit_tiny_patch16_224 --random --classes 10 --image-size 128 \
    --mean 0.491255 0.482078 0.446510 --std 0.245216 0.242784 0.260627 -o random.safetensors
step cifar10.safetensors rowvit train random.safetensors --data "${3:?name CIFAR-10}" \
    --recipe "$recipes/cifar10.toml" -o cifar10.safetensors
step start.safetensors rowvit import cifar10.safetensors --image-size 224 \
    --mean 0.674139 0.645413 0.615984 --std 0.140777 0.157692 0.185478 -o start.safetensors
train first.safetensors start.safetensors gelu.toml
train gelu.safetensors first.safetensors gelu2.toml
chain 3,6,9

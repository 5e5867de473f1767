#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hand signs, width 128, with a gated FFN, from a float network to the table:
#     bash recipes/sign-digits-gated/run.sh sign_digits_jpeg.npz FOLDER FLOAT.safetensors
. "$(dirname "$0")/../steps.sh"
thresholds=  # a gated FFN has none
config=kv260
act=SiLU

step plain.safetensors rowvit import "${3:?name the float network}" --heads 2 --pool token --act gelu \
    --mean 0.674139 0.645413 0.615984 --std 0.140777 0.157692 0.185478 -o plain.safetensors
step start.safetensors python "$recipes/gates.py" plain.safetensors start.safetensors
train gelu.safetensors start.safetensors silu.toml
step refit.safetensors rowvit relu gelu.safetensors --data "$data" --no-measure -o refit.safetensors
train relu.safetensors refit.safetensors relu.toml --teacher gelu.safetensors
train pruned.safetensors relu.safetensors prune.toml --teacher gelu.safetensors
table 1,3,4

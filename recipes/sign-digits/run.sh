#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Hand signs, width 128, from a float network to the table:
#     bash recipes/sign-digits/run.sh sign_digits_jpeg.npz FOLDER FLOAT.safetensors
. "$(dirname "$0")/../steps.sh"

step start.safetensors rowvit import "${3:?name the float network}" --heads 2 --pool token --act gelu \
    --mean 0.674139 0.645413 0.615984 --std 0.140777 0.157692 0.185478 -o start.safetensors
train gelu.safetensors start.safetensors gelu.toml
chain 1,3,4

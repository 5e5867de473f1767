#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The demo's package, from a float ReLU network (56 pixels, patch 4, width 128, 6 blocks, 2 heads):
#     bash recipes/demo/run.sh sign_digits_jpeg.npz FOLDER FLOAT.safetensors
. "$(dirname "$0")/../steps.sh"

step sign-digits.safetensors cp "${3:?name the float network}" sign-digits.safetensors
step names.txt bash -c 'printf "%s\n" 0 1 2 3 4 5 6 7 8 9 > names.txt'
step start.safetensors rowvit import sign-digits.safetensors --act relu --heads 2 --pool token \
    --class-names names.txt --mean 0.674139 0.645413 0.615984 --std 0.140777 0.157692 0.185478 \
    --licence Apache-2.0 \
    --origin "trained for rowvit on the Sign Language Digits Dataset (Arda Mavi, arXiv 2011.08927, Apache-2.0)" \
    -o start.safetensors
train focus.safetensors start.safetensors focus.toml
train earlier.safetensors focus.safetensors earlier.toml
train selection.safetensors earlier.safetensors selection.toml
train aware.safetensors selection.safetensors int8.toml
step sign_digits.safetensors rowvit quantise aware.safetensors --data "$data" --ffn-chunk 256 -o sign_digits.safetensors
score float aware.safetensors
score int8 sign_digits.safetensors --cycles 16
printed focus.md python "$benchmarks/focus.py" sign_digits.safetensors --data "$data"

# SPDX-License-Identifier: Apache-2.0
# What the run.sh of every recipe has in common; sourced with the arguments DATA FOLDER [START].
#
# The steps write into FOLDER. A step whose file is there is skipped, and an interrupted training goes on
# from its saved state: after a kill the same command continues. FOLDER/times.tsv has the seconds of each.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 DATA FOLDER [START]" >&2; exit 2; }
recipes=$(cd "$(dirname "$0")" && pwd)
data=$(realpath "$1")
mkdir -p "$2"
[ -z "${3:-}" ] || [ ! -e "$3" ] || set -- "$1" "$2" "$(realpath "$3")"
cd "$2"

# step FILE COMMAND...: run COMMAND, which writes FILE, unless it is there.
step() {
    local file=$1 began=$SECONDS
    shift
    [ ! -e "$file" ] || { echo "$file is there"; return 0; }
    echo "+ $*"
    "$@"
    printf '%s\t%d\n' "$file" $((SECONDS - began)) >> times.tsv
}

# train FILE FROM RECIPE [OPTION...]
train() {
    local file=$1 from=$2 recipe=$3
    shift 3
    step "$file" rowvit train "$from" --data "$data" --recipe "$recipes/$recipe" -o "$file" "$@"
}

# score NAME NETWORK [OPTION...]: its row on the complete test set, NAME.json
score() {
    local name=$1 network=$2
    shift 2
    step "$name.json" rowvit eval "$network" --data "$data" --json "$name.json" "$@"
}

# timed NAME NETWORK RULE: cycles of a float network's int8 version, NAME-cycles.json
timed() {
    local int8=${2%.safetensors}-int8.safetensors
    step "$int8" rowvit quantise "$2" --data "$data" --no-measure -o "$int8"
    score "$1-cycles" "$int8" --photos 16 --cycles 16 --rule "$3"
}

# int8 NAME FROM LAYERS: thresholds, quantisation, and the row of NAME.safetensors
int8() {
    step "$1-float.safetensors" rowvit prune "$2" --data "$data" --layers "$3" --rho 0.5 --rule image \
        --max-loss 0.5 --no-measure -o "$1-float.safetensors"
    step "$1.safetensors" rowvit quantise "$1-float.safetensors" --data "$data" --no-measure -o "$1.safetensors"
    score "$1" "$1.safetensors" --cycles 16
}

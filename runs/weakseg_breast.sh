#!/usr/bin/env bash
# Another organ, as a small demonstration: 24 fields of one slide (TCGA-BRCA), trained and scored by themselves, and mapped by
# the published colon weights. Three folds by image of one slide: it says that the machinery works there, and no more.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${TAMIS_DATA:-../shared/data}/pathology/breast_tcga_roi
python=${PYTHON:-.venv/bin/python}
out=${OUT:-work/weakseg}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
weakseg() { "$python" -m tamis weakseg "$@"; }

mkdir -p "$out/breast"
cp -r "$data/images" "$data/masks" "$out/breast/"
# The slide's name is left out, as there is one alone; areas in tenths; the fields are of about 0.5 um/px.
"$python" - "$data/labels.csv" "$out/breast/labels.csv" << 'EOF'
import csv, sys
from tamis.weakseg.glas import state_area
with open(sys.argv[1], newline="") as file, open(sys.argv[2], "w", newline="") as target:
    writer = csv.writer(target)
    writer.writerow(["name", "label", "area", "um_per_px"])
    for row in csv.DictReader(file):
        cancer = row["label"] == "cancer"
        area = state_area(float(row["tumor_fraction"]), "tenths") if cancer else ""
        writer.writerow([row["file"], row["label"], area, "0.5"])
EOF
weakseg check "$out/breast"
weakseg train "$out/breast" -o "$out/breast-0" --folds 3 --threads 1 --set um_per_px=0.5 > "$out/breast-0.log"
weakseg evaluate "$out/breast" "$out/breast-0/maps"
weakseg segment "$out/breast/images" --mpp 0.5 -o "$out/breast-colon" > "$out/breast-colon.log"
weakseg evaluate "$out/breast" "$out/breast-colon"

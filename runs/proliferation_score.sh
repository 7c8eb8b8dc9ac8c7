#!/usr/bin/env bash
# The commands behind the published model of PAM50 proliferation, the phantom, and the figures of docs/proliferation.md.
#   runs/proliferation_score.sh DATA      (the folder of the shared data)
set -euo pipefail
data=${1:?the folder of the shared data}

python runs/proliferation_phantom.py
python benchmarks/proliferation_pam50.py "$data" --publish
python benchmarks/proliferation_coverage.py

# Who holds TUPAC16 in its own layout (TUPAC-TR-001.svs ... and training_ground_truth.csv) makes a model of both scores:
#   tamis proliferation train training_ground_truth.csv SLIDES -o work/tupac16 --jobs 2
#   tamis proliferation evaluate training_ground_truth.csv work/tupac16/cross_validated.csv

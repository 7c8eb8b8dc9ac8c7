#!/usr/bin/env bash
# The published mitosis detector, mitosis.lite0 and mitosis.candidates, in one run from ImageNet's weights. Needs the shared data
# (TAMIS_DATA). Each line can be stopped and run again; about 25 minutes of one Zen 5 core, the last two lines of figures apart.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORK=work/mitosis-b
TRAIN=".venv/bin/python -m tamis.proliferation.train_mitosis"

# The perceptron that sifts dark nuclei; prints mitoses kept against candidates per mm2 (validation cases).
.venv/bin/python -m tamis.proliferation.train_candidates --work $WORK

# Step 1: all dark nuclei of fields and composed training slides as negatives. Step 2, from the start: its false ones drawn more often.
$TRAIN first --grounds --work $WORK
$TRAIN mine --grounds --work $WORK
$TRAIN second --grounds --work $WORK

# The glance between perceptron and network; prints its curve on composed validation slides.
.venv/bin/python -m tamis.proliferation.train_glance --grounds --work $WORK

# Export and figures on test cases. Threshold and bound were fixed on composed slides of validation cases:
#   python benchmarks/proliferation_operating_point.py --work work/mitosis-b --count 8
.venv/bin/python -m tamis.proliferation.publish_mitosis --threshold 0.9 --field-threshold 0.5 --least 1.5 --work $WORK

# Unseen cases in unseen grounds: detection with and without candidates, then 60 whole slides (resumable, about two hours).
.venv/bin/python benchmarks/proliferation_detect.py --count 6 --size 6144 --seed 1000 --dense 1
.venv/bin/python benchmarks/proliferation_composed.py --count 60 --size 20000 --work work/composed60

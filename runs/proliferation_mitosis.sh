#!/usr/bin/env bash
# The published mitosis detector: mitosis.lite0 and mitosis.candidates. Needs the shared data (TAMIS_DATA). Each line can be
# stopped and run again; together about 20 minutes of one Zen 5 core.
#
# The published weights came about in these steps, but not in one go: the first 1000 steps of `second` and the mining ran
# before windows.setting hid the patch's own mitosis; `alike` and `grounds` went on from there with it; `first` was stopped
# at step 600 of a schedule of 1800, and `grounds` at step 100 of 320 (--seconds stops with a checkpoint).
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORK=work/mitosis
TRAIN=".venv/bin/python -m tamis.proliferation.train_mitosis"

# The perceptron before the network; prints mitoses kept against candidates per mm2 (validation cases).
.venv/bin/python -m tamis.proliferation.train_candidates --work $WORK

# Step 1: dark nuclei as negatives. Step 2: its false positives drawn more often.
$TRAIN first --work $WORK
$TRAIN mine --work $WORK
$TRAIN second --trunk lite0 --work $WORK
mv $WORK/lite0.pt $WORK/lite0-context.pt

$TRAIN second --trunk lite0 --start $WORK/lite0-context.pt --steps 700 --seed 1 --work $WORK
mv $WORK/lite0.pt $WORK/lite0-alike.pt

# Nuclei of composed training slides as well: stroma and lymphocytes, which AMi-Br hardly shows.
$TRAIN second --trunk lite0 --start $WORK/lite0-alike.pt --steps 320 --seed 2 --grounds --work $WORK
mv $WORK/lite0.pt $WORK/lite0-grounds.pt

# Export and figures on test cases; the threshold was fixed on a composed slide of validation cases (seed 501).
.venv/bin/python -m tamis.proliferation.publish_mitosis --checkpoint lite0-grounds --threshold 0.65 --work $WORK

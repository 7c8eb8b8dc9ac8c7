#!/usr/bin/env bash
# The published mitosis detector, mitosis.lite0 and mitosis.candidates. Needs the shared data (TAMIS_DATA). Each line can be stopped and
# run again; 25 minutes of one core for the first part, 40 for the second, the last four lines of figures apart.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORK=work/mitosis-c
TRAIN=".venv/bin/python -m tamis.proliferation.train_mitosis"
mkdir -p $WORK

# The network it starts from: that of 2026-11-23, made from ImageNet's weights in two steps (`first`, `mine`, `second --steps 2400`, all with
# --grounds) by this script and the augmentation as they were in that commit. From nothing today: leave out --start and run `first` before.
git show 0ca868c:src/tamis/proliferation/weights/mitosis.lite0.onnx > $WORK/start.onnx

# The perceptron that sifts dark nuclei; prints mitoses kept against candidates per mm2 (validation cases).
.venv/bin/python -m tamis.proliferation.train_candidates --work $WORK

# Its false ones among the dark nuclei of fields and composed training slides are drawn more often. (The first 400 of the published steps ran
# with the learning rate of a run of 2,800.)
$TRAIN mine --grounds --work $WORK --start $WORK/start.onnx
$TRAIN second --grounds --work $WORK --start $WORK/start.onnx --steps 1600

# The glance between perceptron and network; prints its curve on composed validation slides.
.venv/bin/python -m tamis.proliferation.train_glance --grounds --work $WORK

# Thresholds and bounds were fixed on composed slides and fields of validation cases:
#   python benchmarks/proliferation_operating_point.py --work $WORK --count 8 --least 0 --show $WORK/false.png
#   python benchmarks/proliferation_fields.py --cases validation --stains 1 --per-case 20
#   python benchmarks/proliferation_evidence.py --count 8 --seed 610
# Export of a quarter of the start's weights and three of the end's, and figures on test cases.
.venv/bin/python -m tamis.proliferation.publish_mitosis --average $WORK/start.onnx 0.25 --threshold 0.925 \
    --field-threshold 0.5 --least 0 --windows-per-mm2 45 --evidence 1.638 -4.658 --work $WORK
.venv/bin/python benchmarks/proliferation_fields.py --cases test --stains 1

# Unseen cases in unseen grounds: detection with and without candidates, then 60 whole slides (resumable, about two hours).
.venv/bin/python benchmarks/proliferation_detect.py --count 6 --size 6144 --seed 1000 --dense 1
.venv/bin/python benchmarks/proliferation_composed.py --count 60 --size 20000 --work work/composed60b

#!/usr/bin/env bash
# The published mitosis detector, mitosis.lite0 and mitosis.candidates. Needs the shared data (TAMIS_DATA). Each line can be stopped and
# run again; on a core of Zen 3: half a minute, 10, 13 and 4 minutes to the glance, then 8 for validation slides and a minute a network.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORK=work/mitosis-e
TRAIN=".venv/bin/python -m tamis.proliferation.train_mitosis"
mkdir -p $WORK

# The network it starts from: that of 2026-11-25, itself made from ImageNet's weights in two steps and trained on in many stains (this
# script in that commit, and the one it names). From nothing today: leave out --start and run `first` before.
git show 0ff238d:src/tamis/proliferation/weights/mitosis.lite0.onnx > $WORK/start.onnx

# The perceptron that sifts dark nuclei; prints mitoses kept against candidates per mm2 (validation cases).
.venv/bin/python -m tamis.proliferation.train_candidates --work $WORK

# Its false ones among the dark nuclei of fields and composed training slides are drawn more often.
$TRAIN mine --grounds --work $WORK --start $WORK/start.onnx
$TRAIN second --grounds --work $WORK --start $WORK/start.onnx --steps 1200

# The glance between perceptron and network; prints its curve on composed validation slides.
.venv/bin/python -m tamis.proliferation.train_glance --grounds --work $WORK

# Which share of the start's weights, and the threshold of slides: whole composed slides of validation cases. The threshold of fields: below.
.venv/bin/python benchmarks/proliferation_weights.py --work $WORK --count 8 --seed 640 --shares 0 0.25 1 --together
# Bounds of candidates were fixed before, on slides of 1 mm2:
#   python benchmarks/proliferation_operating_point.py --work $WORK --count 8 --least 0 --show $WORK/false.png
# Export of a quarter of the start's weights and three of the end's, and figures on test cases.
.venv/bin/python -m tamis.proliferation.publish_mitosis --average $WORK/start.onnx 0.25 --threshold 0.94 \
    --field-threshold 0.5 --least 0 --windows-per-mm2 45 --work $WORK
.venv/bin/python benchmarks/proliferation_fields.py --cases validation --stains 1 --per-case 20
.venv/bin/python benchmarks/proliferation_fields.py --cases test --stains 1

# Unseen cases in unseen grounds: 60 whole slides (resumable, an hour), then detection with and without candidates.
.venv/bin/python benchmarks/proliferation_composed.py --count 60 --seed 2100 --size 20000 --work work/composed60e
.venv/bin/python benchmarks/proliferation_detect.py --count 6 --size 6144 --seed 1000 --dense 6

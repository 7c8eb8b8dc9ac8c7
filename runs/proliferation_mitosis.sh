#!/usr/bin/env bash
# The published mitosis detector: mitosis.lite0 and mitosis.candidates. Needs the shared data (TAMIS_DATA). Each line can be
# stopped and run again; all of them took about 15 minutes of one Zen 5 core.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORK=work/mitosis

# The perceptron before the network; prints mitoses kept against candidates per mm2 (validation cases).
.venv/bin/python -m tamis.proliferation.train_candidates --work $WORK

# Step 1: dark nuclei as negatives. Step 2: its false positives drawn more often.
.venv/bin/python -m tamis.proliferation.train_mitosis first --work $WORK
.venv/bin/python -m tamis.proliferation.train_mitosis mine --work $WORK
.venv/bin/python -m tamis.proliferation.train_mitosis second --trunk lite0 --work $WORK

# Export, threshold on validation cases, figures on test cases.
.venv/bin/python -m tamis.proliferation.publish_mitosis --work $WORK

#!/usr/bin/env bash
# The language models and the table of scripts: texts in, src/tamis/subtitles/weights/lm.*.npz and scripts.txt out.
# About twenty minutes of one slow core and 3 GB of memory; most of it is OpenCC. Nothing is drawn at random.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${TAMIS_DATA:-../shared/data}/subtitles
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1

for language in zh-hans:1800000 zh-hant:1800000 ja:1000000 ko:1000000; do
    "$python" -m tamis.subtitles.corpus "$data" "${language%:*}" --keep "${language#*:}" -o "${OUT:-src/tamis/subtitles/weights}"
done
"$python" -m tamis.subtitles.scripts "$data" --models "${OUT:-src/tamis/subtitles/weights}"

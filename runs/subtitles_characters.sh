#!/usr/bin/env bash
# The commands behind the character CNNs. About two hours on two cores of a 2024 server; every step goes on where it was stopped.
#   runs/subtitles_characters.sh DATA      (DATA holds subtitles/text and subtitles/backgrounds; `make fonts` first)
set -euo pipefail
data=${1:?the folder of the shared data}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export OMP_WAIT_POLICY=PASSIVE  # a spinning wait costs more than it saves beside the renderer
lines=work/lines out=work/characters
recipe="--lines $lines --out $out --learning-rate 3e-3 --threads 1 --shards 200"

"$python" -m tamis.subtitles.synthesis "$data" $lines/dev --shards 2 --seed 9 --part dev
"$python" -m tamis.subtitles.synthesis "$data" $lines/train --shards 200 --seed 2 --natural 0.7 &

# The first member learns the class vectors. The others learn to speak the same language beside it: they take the vectors over
# again every few minutes, and for good when the first member is finished.
member() {
    while ! tail -n 1 $out/"$1".jsonl 2>/dev/null | grep -q "\"step\": $2,"; do
        "$python" -m tamis.subtitles.train "$1" $recipe --steps "$2" --seed "$3" --head $out/vgg.pt --minutes 8 || sleep 20
    done
}
"$python" -m tamis.subtitles.train vgg $recipe --steps 14000 &
while [ ! -e $out/vgg.pt ]; do sleep 60; done
member residual 8000 2 &
wait %2
member dense 6000 3
wait
"$python" -m tamis.subtitles.publish $out/vgg.pt $out/residual.pt $out/dense.pt --lines $lines

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

# (The shipped `residual` spoke the first vectors until step 6,750, for the fit was found while it trained.)
# The first member learns the class vectors, which are then fitted again on its finished features; the other speaks the same
# language: its own copy of them is frozen. Lastly they are fitted to the mean of both members' features.
"$python" -m tamis.subtitles.train vgg $recipe --steps 14000
"$python" -m tamis.subtitles.train_head $out/vgg.pt --lines $lines --out $out/head-vgg.pt --shards 120 --passes 1.5
"$python" -m tamis.subtitles.train residual $recipe --steps 9500 --seed 2 --head $out/head-vgg.pt
"$python" -m tamis.subtitles.train_head $out/vgg.pt $out/residual.pt --start $out/head-vgg.pt --lines $lines --out $out/head.pt --shards 100 --passes 1.2
wait
"$python" -m tamis.subtitles.publish $out/vgg.pt $out/residual.pt --head $out/head.pt --lines $lines

#!/usr/bin/env bash
# The commands behind the character CNNs. About three hours of one core of a 2024 server; every step goes on where it was stopped.
#   runs/subtitles_characters.sh DATA      (DATA holds subtitles/text and subtitles/backgrounds; `make fonts` first)
set -euo pipefail
data=${1:?the folder of the shared data}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export OMP_WAIT_POLICY=PASSIVE  # a spinning wait costs more than it saves beside the renderer
lines=work/lines first=work/characters out=work/characters/second
recipe="--lines $lines --threads 1 --shards 200"
mkdir -p $out

"$python" -m tamis.subtitles.synthesis "$data" $lines/dev --shards 2 --seed 9 --part dev
"$python" -m tamis.subtitles.synthesis "$data" $lines/train --shards 200 --seed 2 --natural 0.7 &

# The class vectors: learnt by the first member, fitted again on its finished features, and again on the mean of two members'.
# (Epsilon 1e-8, as it was run, drives vectors of rare characters away, which the fits mend. `residual` spoke the unmended ones
# until step 6,750, for the fit was found while it trained.)
early="--epsilon 1e-8 --precision float32 --learning-rate 3e-3"
"$python" -m tamis subtitles train vgg $recipe $early --out $first --steps 14000
"$python" -m tamis.subtitles.train_head $first/vgg.pt --lines $lines --out $first/head-vgg.pt --shards 120 --passes 1.5
"$python" -m tamis subtitles train residual $recipe $early --out $first --steps 9500 --seed 2 --head $first/head-vgg.pt
"$python" -m tamis.subtitles.train_head $first/vgg.pt $first/residual.pt --start $first/head-vgg.pt --lines $lines --out $first/head.pt --shards 100 --passes 1.2

# All three members towards these vectors (the third from nothing; its first 1,500 steps with epsilon 1e-8 in float32). Fitting the
# vectors once more, to the mean of the three, made unseen faces worse: by then the members know the training faces too well.
members="$recipe --head $first/head.pt"
"$python" -m tamis subtitles train dense $members --out $first --learning-rate 3e-3 --steps 9000 --seed 3
"$python" -m tamis subtitles train vgg $members --out $out --start $first/vgg.pt --learning-rate 1.5e-3 --steps 8000 --seed 11
"$python" -m tamis subtitles train residual $members --out $out --start $first/residual.pt --learning-rate 1.5e-3 --steps 8000 --seed 12
wait
"$python" -m tamis.subtitles.publish $out/vgg.pt $out/residual.pt $first/dense.pt --head $first/head.pt --lines $lines

#!/usr/bin/env bash
# The commands behind the character CNNs. About 3 hours on two cores; every step goes on where it was stopped.
#   runs/subtitles_characters.sh DATA      (DATA holds subtitles/text and subtitles/backgrounds; `make fonts` first)
set -euo pipefail
data=${1:?the folder of the shared data}
export OMP_WAIT_POLICY=PASSIVE  # a spinning wait costs more than it saves beside the renderer
lines=work/lines out=work/characters

python -m tamis.subtitles.synthesis "$data" $lines/dev --shards 3 --seed 9 --part dev
python -m tamis.subtitles.synthesis "$data" $lines/train --shards 200 --seed 1 &

# The first member learns the class vectors; the others are trained to speak the same language.
python -m tamis.subtitles.train vgg --lines $lines --out $out --steps 4500 --learning-rate 3e-3
python -m tamis.subtitles.train residual --lines $lines --out $out --steps 1500 --learning-rate 3e-3 --seed 2 --head $out/vgg.pt
python -m tamis.subtitles.train dense --lines $lines --out $out --steps 1500 --learning-rate 3e-3 --seed 3 --head $out/vgg.pt
wait

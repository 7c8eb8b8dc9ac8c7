#!/bin/sh
# Dense, Spark FFN, Spark FFN + attention at equal parameters and equal tokens: does sparsity cost quality?
#
#   runs/spark_parity.sh [STEPS] [SEEDS] [ARMS]        (1024 tokens a step; 10000 steps are 10 M tokens)
#
# Every run can be killed and the script started again: what is finished stays, what is not goes on. Seeds outermost, so
# that one complete comparison exists early. The table of what is there:  python runs/spark_parity_table.py work/spark/parity-STEPS
# Ablations: ARMS="exact hard stopgradient nogate r8".
set -eu
cd "$(dirname "$0")/.."
steps=${1:-10000}
seeds=${2:-"1 2 3"}
arms=${3:-"spark dense sparkffn"}
data=${TAMIS_DATA:-../shared/data}/text_en/en.txt.xz
out=work/spark/parity-$steps
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

train() { # NAME SEED OPTION...
  name=$1 seed=$2
  shift 2
  folder=$out/$name-$seed
  [ -f "$folder/model.safetensors" ] && return
  mkdir -p "$folder"
  if [ -f "$out/text/tokens/tokens.json" ]; then # the same tokens for all
    ln -sfn ../text/tokens "$folder/tokens"
    ln -sf ../text/tokenizer.json "$folder/tokenizer.json"
  fi
  nice -n 4 .venv/bin/python -m tamis spark train "$data" -o "$folder" --preset tiny --context 256 --batch 4 \
    --steps "$steps" --learning-rate 4e-3 --seed "$seed" --threads 1 --checkpoint-every 100 \
    --evaluate-every $((steps / 8)) "$@"
  if [ ! -d "$out/text" ]; then
    mkdir "$out/text"
    mv "$folder/tokens" "$folder/tokenizer.json" "$out/text/"
    ln -sfn ../text/tokens "$folder/tokens"
    ln -sf ../text/tokenizer.json "$folder/tokenizer.json"
  fi
}

for seed in $seeds; do
  for arm in $arms; do
    case $arm in
      dense) train dense "$seed" --ffn gated --attention softmax ;;
      sparkffn) train sparkffn "$seed" --ffn spark --attention softmax ;;
      spark) train spark "$seed" --ffn spark --attention spark ;;
      exact) train exact "$seed" --set topk_method=exact ;;
      hard) train hard "$seed" --set ffn_cut=hard ;;
      stopgradient) train stopgradient "$seed" --set theta_gradient=false ;;
      nogate) train nogate "$seed" --set attention_gate=none ;;
      r8) train r8 "$seed" --set attention_predictor_size=8 ;;
      *) echo "unknown arm $arm" >&2 && exit 2 ;;
    esac
  done
done

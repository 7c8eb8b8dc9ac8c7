#!/bin/sh
# Dense, Spark FFN, Spark FFN + attention at equal parameters and equal tokens: does sparsity cost quality?
#
#   runs/spark_parity.sh [STEPS] [SEEDS] [ARMS]        (2048 tokens a step; 5000 steps are 10.24 M tokens)
#
# 1.06 M parameters an arm. Two layers, one of each kind, rather than four narrower ones: the same products, half of
# everything that is no product. Every run can be killed and the script started again: what is finished stays, what is not
# goes on, what another instance of this script is at is left to it. Seeds outermost, so that one complete comparison exists
# early. The table of what is there:  python runs/spark_parity_table.py work/spark/parity-STEPS
# Ablations: ARMS="free denseequal exact normal hard stopgradient nogate r24". Another shape or schedule for all arms, in a folder of
# its own: NAME=wide OPTIONS="--set hidden_size=160 --learning-rate 8e-3" runs/spark_parity.sh (what comes later counts).
# The model that ships is one of them:  python -m tamis.spark.publish work/spark/parity-STEPS/spark-1 --command "..."
# Some 11 (dense) to 13 minutes of one core of a Zen 5 an arm, half an hour of a Zen 3 (float32).
set -eu
cd "$(dirname "$0")/.."
steps=${1:-5000}
seeds=${2:-"1 2 3"}
arms=${3:-"dense spark sparkffn"}
# bfloat16 products halve the time where the processor multiplies them (AVX-512 bf16), and take a hundredfold where it does not.
grep -q avx512_bf16 /proc/cpuinfo && fastest=bfloat16 || fastest=float32
precision=${PRECISION:-$fastest}
data=${TAMIS_DATA:-../shared/data}/text_en/en.txt.xz
out=work/spark/${NAME:-parity}-$steps
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# Activations of some megabytes come and go every step: without this glibc gives them back to the kernel each time.
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456

train() { # NAME SEED OPTION...
  name=$1 seed=$2
  shift 2
  folder=$out/$name-$seed
  [ -f "$folder/model.safetensors" ] && return
  mkdir -p "$folder"
  if [ -f work/spark/text/tokens/tokens.json ]; then # the same tokens for all
    ln -sfn ../../text/tokens "$folder/tokens"
    ln -sf ../../text/tokenizer.json "$folder/tokenizer.json"
  fi
  flock --nonblock --conflict-exit-code 0 "$folder/lock" \
    .venv/bin/python -m tamis spark train "$data" -o "$folder" --preset tiny --context 256 --batch 8 \
    --set num_hidden_layers=2 --set hidden_size=192 --set num_attention_heads=2 --set num_key_value_heads=1 \
    --set head_dim=96 --set query_pre_attn_scalar=96 --set intermediate_size=384 \
    --precision "$precision" --steps "$steps" --learning-rate 3e-3 --seed "$seed" --threads 1 --checkpoint-every 50 \
    --evaluate-every $((steps / 8)) "$@" ${OPTIONS:-}
  if [ ! -d work/spark/text ] && [ -f "$folder/model.safetensors" ]; then
    mkdir work/spark/text
    mv "$folder/tokens" "$folder/tokenizer.json" work/spark/text/
    ln -sfn ../../text/tokens "$folder/tokens"
    ln -sf ../../text/tokenizer.json "$folder/tokenizer.json"
  fi
}

for seed in $seeds; do
  for arm in $arms; do
    case $arm in
      dense) train dense "$seed" --ffn gated --attention softmax ;;
      sparkffn) train sparkffn "$seed" --ffn spark --attention softmax ;;
      spark) train spark "$seed" --ffn spark --attention spark ;;
      exact) train exact "$seed" --set topk_method=exact ;;
      free) train free "$seed" --set gate_rows=free ;; # the rows of Spark's predictor as long as they become
      denseequal) train denseequal "$seed" --ffn gated --attention softmax --set gate_rows=equal ;; # dense as Spark is
      normal) train normal "$seed" --set theta_shift=none ;;
      hard) train hard "$seed" --set ffn_cut=hard ;;
      stopgradient) train stopgradient "$seed" --set theta_gradient=false ;;
      nogate) train nogate "$seed" --set attention_gate=none ;;
      r24) train r24 "$seed" --set attention_predictor_size=24 ;;
      *) echo "unknown arm $arm" >&2 && exit 2 ;;
    esac
  done
done

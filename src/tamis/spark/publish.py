"""Put a trained run into the package: bfloat16 weights, tokenizer, record and golden continuation.

    python -m tamis.spark.publish work/spark/parity-10000/spark-1 --command runs/spark_parity.sh

The golden output is greedy, from the published (rounded) weights, computed by `reference.py` in double precision, which
imports nothing from PyTorch or the engine. Its prompt is the first of some candidates along which the likeliest token leads
by at least MARGIN: so that rounding cannot change it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tamis.errors import InputError
from tamis.spark.checkpoint import read_config
from tamis.spark.evaluate import open_model, report
from tamis.spark.presets import parameters
from tamis.spark.published import BESIDE, FOLDER, NAME
from tamis.spark.reference import Array, Reference
from tamis.spark.tokens import open_tokenizer, open_tokens, read_splits
from tamis.weights import Weights, publish, sha256_of

MARGIN = 0.02
"""Of logits. Of greedy tokens in bfloat16, activations included, some still differ."""
STARTS = (
    "The people who", "We want to", "The city has", "This function returns", "One of the", "If you are",
    "The government", "And so I think", "In this case", "I think that", "This PEP", "Python", "The data", "A lot of",
)  # fmt: skip


def continuation(model: Reference, prompt: Sequence[int], length: int) -> tuple[list[int], float, Any]:
    """Greedy tokens, the smallest lead of the first over the second, and the logits after the prompt."""
    state, logits = model.start(), _nothing()
    for token in prompt:
        state, logits = model.step(state, token)
    first, made, lead = logits, [], np.inf
    for _ in range(length):
        best, second = np.argsort(logits)[-1:-3:-1]
        lead = min(lead, logits[best] - logits[second])
        made.append(int(best))
        state, logits = model.step(state, int(best))
    return made, float(lead), first


def _nothing() -> Array:
    return np.zeros(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a finished `tamis spark train`")
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--command", required=True, help="what made the run")
    parser.add_argument("--length", type=int, default=24, help="tokens of the golden continuation")
    parser.add_argument("--limit", type=int, default=100_000, help="test tokens that are scored")
    options = parser.parse_args()

    folder = FOLDER / options.name
    folder.mkdir(parents=True, exist_ok=True)
    model = open_model(options.run)
    # A rounded shift would be another share of active neurons.
    state = {
        name: value if name.endswith(".quantile_shift") else value.to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # save_file makes it private
    config = json.loads((options.run / "config.json").read_text()) | {"dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer = json.loads((options.run / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))
    shutil.copyfile(options.run / "tokenizer_config.json", folder / "tokenizer_config.json")

    vocabulary = open_tokenizer(folder / "tokenizer.json")
    reference = Reference.open(folder)
    candidates = [vocabulary.encode(start).ids for start in STARTS]
    for prompt in candidates:
        made, lead, logits = continuation(reference, prompt, options.length)
        if lead >= MARGIN:
            break
    else:
        raise InputError(
            f"No continuation of {len(STARTS)} prompts leads by {MARGIN} throughout: shorten --length."
        )
    golden = f"{options.name}.golden.npz"
    np.savez_compressed(
        FOLDER / golden,
        input=np.array(prompt),
        output=np.array(made),
        output_logits=logits.astype(np.float32),
    )
    text = options.run / "tokens"
    found = report(
        open_model(folder),
        open_tokens(text, "test"),
        read_splits(text)["test"].bytes,
        model.config.sliding_window * 2,
    )
    steps = json.loads((options.run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    record = Weights(
        name=options.name,
        file=f"{options.name}/model.safetensors",
        sha256="",
        licence="Apache-2.0; trained on CC0, public-domain and MIT / Apache-2.0 text",
        training_data="shared text_en (48 MB of English: transcripts, web guides, PEPs, RFCs), training documents",
        command=options.command,
        preprocessing={f"{file} sha256": sha256_of(folder / file) for file in BESIDE},
        vocabulary=f"byte-level BPE, {vocabulary.get_vocab_size()} tokens",
        score={
            "on": "held-out documents of the training text",
            "loss": round(found["loss"], 4),
            "bits_per_byte": round(found["bits_per_byte"], 4),
            "tokens": found["tokens"],
            "active_share": round(mean(layer["active_share"] for layer in found["layers"]), 4),
            "attended_keys_beyond_k": round(
                mean(x["attended_keys_mean_beyond_k"] for x in found["layers"]), 2
            ),
            "parameters": parameters(read_config(folder)),
            "steps": steps,
        },
        golden=golden,
    )
    print(
        publish(record, FOLDER), f"golden prompt {vocabulary.decode(prompt)!r} -> {vocabulary.decode(made)!r}"
    )


if __name__ == "__main__":
    main()

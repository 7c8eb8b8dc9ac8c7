"""The table of runs/spark_parity.sh: test loss of every arm, its gap to dense at the same seed, spread over seeds.

    python runs/spark_parity_table.py work/spark/parity-10000 [--context 256] [--limit 100000]

Finished runs only. The test documents were neither trained on nor looked at while training.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from tamis.spark.checkpoint import read_config
from tamis.spark.evaluate import open_model, report
from tamis.spark.presets import parameters
from tamis.spark.tokens import open_tokens, read_splits


def measure(folder: Path, context: int, limit: int) -> dict[str, Any]:
    """The report of a run on its test tokens, kept beside it: a run does not change once finished."""
    kept = folder / f"test-{context}-{limit}.json"
    if not kept.exists():
        tokens = open_tokens(folder / "tokens", "test")
        size = read_splits(folder / "tokens")["test"].bytes
        part = tokens[: limit + 1]
        found = report(open_model(folder), part, round(size * (len(part) - 1) / len(tokens)), context)
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--limit", type=int, default=100_000)
    options = parser.parse_args()
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    size = 0
    for path in sorted(options.folder.glob("*/model.safetensors")):
        name, _, seed = path.parent.name.rpartition("-")
        arms.setdefault(name, {})[int(seed)] = measure(path.parent, options.context, options.limit)
        size = parameters(read_config(path.parent))
    dense = arms.get("dense", {})
    print(
        f"{size} parameters an arm; test loss in nats a token over {options.limit} tokens, context {options.context}"
    )
    print(
        "| arm | seeds | loss | sd | gap to dense | active share, mean of layers (range) | attended keys beyond k |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, runs in sorted(arms.items(), key=lambda item: (item[0] != "dense", item[0])):
        losses = [run["loss"] for run in runs.values()]
        gaps = [run["loss"] / dense[seed]["loss"] - 1 for seed, run in runs.items() if seed in dense]
        layers = [layer for run in runs.values() for layer in run["layers"]]
        shares = [layer["active_share"] for layer in layers]
        sparse = all(run["attention_active"] for run in runs.values())
        beyond = [layer["attended_keys_mean_beyond_k"] for layer in layers]
        gap = (
            f"{statistics.mean(gaps):+.2%} ({min(gaps):+.2%} to {max(gaps):+.2%})"
            if gaps and name != "dense"
            else "-"
        )
        spread = f"{statistics.stdev(losses):.4f}" if len(losses) > 1 else "n = 1"
        attended = f"{statistics.mean(beyond):.1f}" if sparse else "all"
        print(
            f"| {name} | {len(runs)} | {statistics.mean(losses):.4f} | {spread} | {gap} | "
            f"{statistics.mean(shares):.1%} ({min(shares):.1%} - {max(shares):.1%}) | {attended} |"
        )


if __name__ == "__main__":
    main()

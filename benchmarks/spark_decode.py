"""Dense and Spark decoding at the shapes of Gemma-2 2B: python benchmarks/spark_decode.py [--rounds 7] [--against llama.cpp]

All that docs/spark_engine.md shows of one processor, in one run, with the machine named: `tamis spark bench` with every part,
records and picture in work/spark-bench/, and the page's table. About 15 GB of memory, some five minutes. On a quiet machine the
elapsed times count, on a shared one the processor's (--cpu). --against llama.cpp needs `make llama`, which compiles it for this
processor, and 10 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tamis import cli, native
from tamis.spark.bench import PARTS

FOLDER = Path("work/spark-bench")
LLAMA = Path("work/llama/site")
"""Where `make llama` puts llama.cpp."""
ASKED = {
    ("model", "bf16", 128): 1.72, ("model", "bf16", 4096): 1.80, ("model", "bf16", 8192): 1.86,
    ("model", "int8", 128): 1.75, ("model", "int8", 4096): 1.88, ("model", "int8", 8192): 1.93,
    ("ffn", "bf16", 128): 3.1, ("attention", "bf16", 8192): 3.2,
    ("fewer-bytes", "bf16 head-int8 predictor-int8", 4096): 2.2,
}  # fmt: skip


def processor() -> str:
    """Its name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def rows(records: Sequence[dict[str, Any]], cpu: bool) -> Iterator[str]:
    """The table of the page: every Spark arm beside the dense one that it is compared with."""
    time, ratio = ("cpu_ms_per_token", "cpu_ratio_to_dense") if cpu else ("ms_per_token", "ratio_to_dense")
    yield "| part | context | dense, ms | GB/s | Spark, ms | GB/s | Spark over dense | asked | limit | plain read |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    dense: dict[str, Any] = {}
    for record in records:
        if record["arm"].startswith("dense"):
            dense[record["part"], record["arm"].split()[1], record["context"]] = record
    for record in records:
        kind, _, recipe = record["arm"].partition(" ")
        if kind != "spark":
            continue
        pair = (dense[record["part"], recipe.split()[0], record["context"]], record)
        cells = [f"{record['part']}, {recipe}", str(record["context"])]
        for each in pair:
            rate = f"{each['mb_read'] / each[time]:.1f}" if "mb_read" in each else ""
            cells += [f"{each[time]:.1f}", rate]
        asked = ASKED.get((record["part"], recipe, record["context"]))
        limit = "" if record["limit"] is None else f"{record['limit']:.2f}"
        read = "" if record["read_gb_per_s"] is None or cpu else f"{record['read_gb_per_s']:.1f}"
        yield (
            "| "
            + " | ".join([*cells, f"{record[ratio]:.2f}", f"{asked:.2f}" if asked else "", limit, read])
            + " |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--layers", type=int, help="fewer than 26: a quick look")
    parser.add_argument("--figure", type=Path, default=FOLDER / "bench.svg")
    parser.add_argument("--cpu", action="store_true", help="processor times in the table")
    parser.add_argument("--against", choices=("llama.cpp",))
    options = parser.parse_args()
    print(f"{processor()}; kernels {native.description()}")
    kept = FOLDER / "bench.jsonl"
    command = ["spark", "bench", "--parts", ",".join(PARTS), "--rounds", str(options.rounds)]
    command += ["-o", str(kept), "--figure", str(options.figure)]
    for name in ("threads", "layers"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    if options.against:
        sys.path.append(str(LLAMA.resolve()))
        command += ["--against", options.against]
    status = cli.main(command)
    if status == 0:
        print(*rows([json.loads(line) for line in kept.read_text().splitlines()], options.cpu), sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())

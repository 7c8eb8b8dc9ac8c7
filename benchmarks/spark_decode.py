"""Dense and Spark decoding at the shapes of Gemma-2 2B: python benchmarks/spark_decode.py [--rounds 7] [--against llama.cpp]

All that docs/spark_engine.md shows, in one run, with the machine named: `tamis spark bench` with every part, records and
picture in work/spark-bench/. About 15 GB of memory. On a shared machine the processor times count, on a quiet one the elapsed
ones. --against llama.cpp needs `make llama`, which compiles it for this processor, and 10 GB of disk.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from tamis import cli, native
from tamis.spark.bench import PARTS

FOLDER = Path("work/spark-bench")
LLAMA = Path("work/llama/site")
"""Where `make llama` puts llama.cpp."""


def processor() -> str:
    """Its name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", choices=("llama.cpp",))
    options = parser.parse_args()
    print(f"{processor()}; kernels {native.description()}")
    command = ["spark", "bench", "--parts", ",".join(PARTS), "--rounds", str(options.rounds)]
    command += ["-o", str(FOLDER / "bench.jsonl"), "--figure", str(FOLDER / "bench.svg")]
    if options.against:
        sys.path.append(str(LLAMA.resolve()))
        command += ["--against", options.against]
    return cli.main(command)


if __name__ == "__main__":
    sys.exit(main())

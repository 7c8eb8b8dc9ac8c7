"""The verb `tamis proliferation compose`: slides with a known truth. Light."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from tamis.errors import InputError, UsageError

_COMPOSE = """Makes pyramidal TIFF slides of real pixels in a synthetic layout, with STEM.truth.json beside each: a test
instrument, not patients. Needs pixels and tables that may not come with Tamis: docs/data.md says which, and from where."""
LEAST_PX, MOST_PX = 1024, 400_000


def add_compose(verbs: Any, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "compose", parents=[common], help="make test slides with known mitoses", description=_COMPOSE
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="OUT.tif, or a folder for several"
    )
    parser.add_argument("--size", type=int, default=20_000, metavar="PX", help="side (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first (default: 0)")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many; seeds count up")
    parser.add_argument(
        "--cases", choices=("test", "validation", "train"), default="test", help="default: %(default)s"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the folder of docs/data.md (default: TAMIS_DATA)"
    )
    parser.add_argument("--json", action="store_true", help="print each truth as one JSON line")
    parser.set_defaults(run=_compose, extra="slides")


def _compose(options: argparse.Namespace) -> int:
    from tamis.proliferation.compose import Composer, write_slide

    if not LEAST_PX <= options.size <= MOST_PX:
        raise UsageError(f"--size {options.size}: give a side from {LEAST_PX} to {MOST_PX} px.")
    if options.count < 1 or options.seed < 0:
        raise UsageError("--count must be at least 1 and --seed at least 0.")
    data = (options.data or Path(os.environ.get("TAMIS_DATA", "../shared/data"))) / "pathology"
    single = options.output.suffix.lower() in (".tif", ".tiff")
    if single and options.count > 1:
        raise UsageError(f"{options.output} names one file, but --count is {options.count}: give a folder.")
    if not data.is_dir():
        raise InputError(
            f"There is no folder {data}: slides are composed of pixels and tables that may not come with Tamis. docs/data.md "
            "says which, and from where; name the folder that holds them with --data or TAMIS_DATA."
        )
    for seed in range(options.seed, options.seed + options.count):
        path = options.output if single else options.output / f"composed-{seed:04d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        composer = Composer(data, size_px=options.size, seed=seed, part=options.cases)
        truth = write_slide(composer, path)
        if options.json:
            print(json.dumps({"slide": str(path), **truth}), flush=True)
        else:
            mitoses = sum(o["kind"] == "mitosis" for o in truth["objects"])
            print(
                f"{path}: {mitoses} mitoses, {truth['hot_spot_count']} in the hot spot, score {truth['mitotic_score']}"
            )
    return 0

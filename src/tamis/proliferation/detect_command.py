"""The verb `tamis proliferation detect`: pictures -> mitoses, one record each. Light."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.arguments import probability, um_per_px
from tamis.batch import Item, Told, attempt
from tamis.errors import UsageError
from tamis.progress import Progress
from tamis.writing import check_writable

if TYPE_CHECKING:
    from tamis.proliferation.mitosis import Mitosis

_DETECT = """Finds mitotic figures in pictures or slides stained with haematoxylin and eosin. Prints one record for each input,
also when nothing is found: {"image":, "mitoses": [{"x_um":, "y_um":, "probability":}]}, likeliest first, from the upper
left corner; of an input that cannot be read {"image":, "error":}. One input at a time; a folder of
slides is for score, which has --jobs and --resume. Research use only."""


def add_detect(verbs: Any, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "detect", parents=[common], help="pictures or slides -> mitotic figures", description=_DETECT
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="IMAGE", help="a picture, a slide, a folder, a pattern or a URL"
    )
    parser.add_argument(
        "--mpp", type=um_per_px, metavar="UM", help="um per pixel, for pictures that do not say"
    )
    parser.add_argument(
        "--threshold", type=probability, metavar="P", help="least probability (default: the published one)"
    )
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="DIR",
        help="also task 3 as TUPAC16 asked for it: DIR/05/01.csv for 05/01.tif, with row,col,confidence in its pixels",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record a line")
    parser.set_defaults(run=_detect, extra="slides")


def _detect(options: argparse.Namespace) -> int:
    import numpy as np

    from tamis.proliferation.detect import detect
    from tamis.proliferation.scoring import inputs
    from tamis.proliferation.submission import write_points
    from tamis.remote import is_url, local
    from tamis.slides import open_slide

    def work(item: Item, told: Told) -> dict[str, Any]:
        with local(item.source) as path, open_slide(path, mpp=options.mpp) as slide:
            mitoses = detect(slide, threshold=options.threshold, progress=told)
            return {"mitoses": mitoses, "um_per_px": slide.um_per_px}

    failed = 0
    images = inputs(options.inputs)  # as `score` takes them: a folder of DICOM files is one slide
    fields = _fields(images, options.submission) if options.submission else {}
    for name in images:
        item = Item(Path(name), Path(), name if is_url(name) else "")
        with Progress(Path(name).name) as bar:
            _, error, found = attempt(work, item, bar)
        if error:
            failed += 1
            print(f"tamis: {error}", file=sys.stderr)
            if options.json:
                print(json.dumps({"image": name, "error": error}, ensure_ascii=False), flush=True)
            continue
        mitoses = found["mitoses"]
        _print(name, mitoses, as_json=options.json)
        if options.submission:
            points = np.array([(m.x_um, m.y_um, m.probability) for m in mitoses]).reshape(-1, 3)
            write_points(options.submission, {fields[name]: points}, found["um_per_px"])
    return 1 if failed else 0


def _fields(images: Sequence[str], folder: Path) -> dict[str, str]:
    """Image -> its name in a submission, such as 05/01. Raises UsageError when two would write the same file."""
    from tamis.remote import is_url, stem_of

    paths = {name: Path(name.split("?")[0] if is_url(name) else name) for name in images}
    for name, path in paths.items():
        if path.parent.name == "..":  # of ../01.png: it would lead out of the submission
            paths[name] = path.parent.resolve() / path.name
    fields = {name: f"{path.parent.name}/{stem_of(name)}".lstrip("/") for name, path in paths.items()}
    first: dict[str, str] = {}
    for name, field in fields.items():
        other = first.setdefault(field.casefold(), name)  # on some file systems A.csv and a.csv are one file
        if other is not name:
            raise UsageError(
                f"{other} and {name} would both be written to {folder / field}.csv: rename one of them, or give them in two "
                "runs with different --submission."
            )
        check_writable(folder / f"{field}.csv")
    return fields


def _print(name: str, mitoses: list[Mitosis], *, as_json: bool) -> None:
    if as_json:
        found = [
            {
                "x_um": round(m.x_um, 3),
                "y_um": round(m.y_um, 3),
                "probability": round(m.probability, 4),
            }
            for m in mitoses
        ]
        print(json.dumps({"image": name, "mitoses": found}, ensure_ascii=False), flush=True)
        return
    print(f"{name}: {len(mitoses)} mitotic figure{'s' * (len(mitoses) != 1)}")
    for m in mitoses:
        print(f"  {m.x_um:10.1f} um  {m.y_um:10.1f} um  {m.probability:5.0%}")

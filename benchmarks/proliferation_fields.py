"""Mitoses in labelled fields, found as `tamis proliferation detect` finds them, for each scanner.

    python benchmarks/proliferation_fields.py --cases validation                   # for thresholds and choices
    python benchmarks/proliferation_fields.py --cases test --stains 2

Every field is searched whole, with candidates and suppression; a detection within 7.5 um of an expert's mitosis is a hit, one
to one, and every other a false positive, but for what may be a part of a mitosis (`Field.of_a_mitosis`; --parts-too counts
that as well). Prints, with intervals over cases, recall, false positives per mm2 and F1 of each
scanner at several thresholds. --stains N adds N copies of each field in random stains (amounts of dye and Lab moved farther than
in training), as a stand-in for laboratories nobody trained on. ICPR 2012 is listed although its fields were trained on.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from proliferation_detect import HIT_UM, matched

from tamis.agreement import Detections, f1_interval
from tamis.proliferation.detect import FOLDER, Detector, suppress
from tamis.proliferation.fields import UM_PER_PX, Field, part_of, read_fields
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.stain import Shift

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STRENGTH = 2.0
ROWS = dict[str, list[tuple[str, float, list[Mitosis], list[Mitosis]]]]
"""Scanner -> (case, mm2, found, real) of its fields."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="validation")
    parser.add_argument("--detector", type=Path, default=FOLDER)
    parser.add_argument("--per-case", type=int, default=1000, help="fields of a case at most")
    parser.add_argument("--stains", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parts-too", action="store_true", help="parts of mitoses are false, as before 2026-11-26"
    )
    options = parser.parse_args()
    data = Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    fields = read_fields(data)
    if options.parts_too:
        fields = [replace(field, spread=()) for field in fields]
    chosen = part_of(fields, options.cases)
    if options.cases != "train":
        chosen += [f for f in fields if f.origin == "ICPR12"]
    detector = Detector.published(folder=options.detector)
    generator = np.random.default_rng(options.seed)
    count: dict[str, int] = defaultdict(int)
    rows: ROWS = defaultdict(list)
    for field in chosen:
        count[field.case] += 1
        if count[field.case] > options.per_case:
            continue
        rows[field.origin].append(searched(field, field.pixels, detector))
        for _ in range(options.stains):
            moved = Shift.random(generator, STRENGTH).apply(field.pixels)
            rows[f"{field.origin}, other stains"].append(searched(field, moved, detector))
    report(rows)


def searched(
    field: Field, pixels: np.ndarray, detector: Detector
) -> tuple[str, float, list[Mitosis], list[Mitosis]]:
    found = detector.in_picture(pixels, least=detector.thorough_candidate)
    real = [Mitosis(x * UM_PER_PX, y * UM_PER_PX, 1.0) for x, y in field.mitoses]
    area = pixels.shape[0] * pixels.shape[1] * UM_PER_PX**2 / 1e6
    marks = suppress([Mitosis((x + 0.5) * UM_PER_PX, (y + 0.5) * UM_PER_PX, p) for x, y, p in found])
    counted = [
        m
        for m in marks
        if any(math.hypot(m.x_um - o.x_um, m.y_um - o.y_um) <= HIT_UM for o in real)
        or not field.of_a_mitosis(m.x_um / UM_PER_PX, m.y_um / UM_PER_PX)
    ]
    return field.case, area, counted, real


def report(rows: ROWS) -> None:
    raw = [name for name in rows if "," not in name and name != "ICPR12"]
    rows = dict(rows) | {"all but ICPR12": [row for name in raw for row in rows[name]]}
    moved = [name for name in rows if "," in name and "ICPR12" not in name]
    if moved:
        rows |= {"all but ICPR12, other stains": [row for name in moved for row in rows[name]]}
    for name, some in sorted(rows.items()):
        cases = sorted({row[0] for row in some})
        print(
            f"{name}: {len(some)} fields, {len(cases)} cases, {sum(len(row[3]) for row in some)} mitoses, "
            f"{sum(row[1] for row in some):.2f} mm2"
        )
        for threshold in THRESHOLDS:
            per_case = {case: Detections(0, 0, 0) for case in cases}
            for case, _, found, real in some:
                per_case[case] += matched([m for m in found if m.probability >= threshold], real)
            total = sum(per_case.values(), Detections(0, 0, 0))
            f1 = ""
            if len(cases) > 2:
                units = [(d.true_positives, d.false_positives, d.false_negatives) for d in per_case.values()]
                e = f1_interval(np.array(units), generator=np.random.default_rng(0), resamples=400)
                f1 = f" {e.interval()}"
            print(
                f"  {threshold:.2f}: recall {total.recall:.3f}, {total.false_positives / sum(r[1] for r in some):.1f} false "
                f"per mm2, precision {total.precision:.3f}, F1 {total.f1:.3f}{f1}"
            )


if __name__ == "__main__":
    main()

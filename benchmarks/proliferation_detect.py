"""Detection on composed slides (real pixels, synthetic layout), and what the network sees of them.

    python benchmarks/proliferation_detect.py --count 6 --size 6144 --cases validation --seed 500    # for the threshold
    python benchmarks/proliferation_detect.py --count 8 --size 6144 [--dense 2]                       # unseen cases

Prints F1 (one-to-one within 7.5 um) at the published threshold, for validation cases at others too, count error, agreement of the
mitotic score, what the network saw, and where the time went. --dense N repeats the first N slides with the network on every 64 px
of tissue, no candidates. --least B moves the candidates' bound.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import cohen_kappa_score

from tamis.agreement import Detections, bootstrap
from tamis.proliferation.compose import REPEATS, Composer, write_slide
from tamis.proliferation.detect import FOLDER, Detector, Effort, detect, suppress
from tamis.proliferation.hotspot import hot_spot
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.windows import window
from tamis.slides import open_slide, tissue_mask

HIT_UM = 7.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help="of one nucleus on a slide; 0: any number"
    )
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--dense", type=int, default=0, help="slides searched without candidates as well")
    parser.add_argument("--cases", default="test")
    parser.add_argument(
        "--least", type=float, help="log-odds of the candidates, instead of the published bound"
    )
    parser.add_argument("--detector", type=Path, help="a folder of other weights")
    parser.add_argument("--threshold", type=float, help="instead of the published one")
    parser.add_argument("--work", type=Path, default=Path("work/composed"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    detector = Detector.published(folder=options.detector or FOLDER)
    detector.least_candidate = detector.least_candidate if options.least is None else options.least
    threshold = detector.threshold if options.threshold is None else options.threshold
    slides: list[tuple[list[Mitosis], list[Mitosis]]] = []
    counts, planted, scores, dense = [], [], [], []
    effort, tissue_mm2, spent_s = Effort(), 0.0, 0.0
    for seed in range(options.seed, options.seed + options.count):
        path = options.work / f"composed-{options.cases}-{options.size}-{seed}.tif"
        truth = write_slide(
            Composer(data, size_px=options.size, seed=seed, part=options.cases, repeats=options.repeats), path
        )
        real = [Mitosis(o["x_um"], o["y_um"], 1.0) for o in truth["objects"] if o["kind"] == "mitosis"]
        with open_slide(path) as slide:
            begun = time.process_time()
            everything = detect(slide, threshold=0.05, detector=detector, effort=effort)
            spent_s += time.process_time() - begun
            mask, um = tissue_mask(slide)
            tissue_mm2 += float(mask.sum()) * um * um / 1e6
            if len(dense) < options.dense:
                dense.append((without_candidates(slide, mask, um, detector), real))
        slides.append((everything, real))
        found = [m for m in everything if m.probability >= threshold]
        spot = hot_spot(found)
        counts.append(spot.count if spot else 0)
        planted.append(truth["hot_spot_count"])
        scores.append((truth["mitotic_score"], 1 + (counts[-1] > 5) + (counts[-1] > 10)))
        unit = matched(found, real)
        print(
            f"seed {seed}: planted {len(real)}, found {len(found)}, hits {unit.true_positives}, false: "
            f"{lookalikes(found, truth)}; hot spot {planted[-1]} -> {counts[-1]}",
            flush=True,
        )
        path.unlink()
    print(
        f"\n{options.count} composed slides of {options.size} px, cases: {options.cases}; {platform.machine()}"
    )
    if options.cases == "validation":
        for t in np.arange(0.3, 0.96, 0.05):
            total = at_threshold(slides, float(t))
            print(
                f"  threshold {t:.2f}: F1 {total.f1:.3f}, precision {total.precision:.3f}, recall {total.recall:.3f}"
            )
    f1 = bootstrap(
        [at_threshold([s], threshold) for s in slides],
        lambda drawn: sum(drawn, Detections(0, 0, 0)).f1,
        generator=np.random.default_rng(0),
    )
    total = at_threshold(slides, threshold)
    print(
        f"threshold {threshold}: F1 {f1.value:.3f} [{f1.low:.3f}, {f1.high:.3f}]  precision {total.precision:.3f}  "
        f"recall {total.recall:.3f}"
    )
    error = np.array(counts) - np.array(planted)
    print(f"hot-spot count: mean error {error.mean():+.1f}, mean absolute {np.abs(error).mean():.1f}")
    if len(slides) > 2:
        kappa = cohen_kappa_score(*zip(*scores, strict=True), labels=[1, 2, 3], weights="quadratic")
        print(f"mitotic score (tupac): quadratic kappa {kappa:.3f}")
    print(
        f"network saw {effort.seen_px / (tissue_mm2 * 16e6):.1%} of the tissue's pixels: {effort.windows} of "
        f"{effort.nuclei} dark nuclei, {effort.windows / tissue_mm2:.0f} per mm2"
    )
    spent = effort.reading_s + effort.candidates_s + effort.network_s
    print(
        f"{spent_s / tissue_mm2 * 100:.0f} CPU s per cm2 of tissue; reading {effort.reading_s / spent:.0%}, "
        f"candidates {effort.candidates_s / spent:.0%}, network {effort.network_s / spent:.0%}; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB at most"
    )
    if dense:
        without, same = at_threshold(dense, threshold), at_threshold(slides[: len(dense)], threshold)
        for name, total in (("with candidates", same), ("without (every 4 um)", without)):
            print(
                f"first {len(dense)}, {name}: F1 {total.f1:.3f}, precision {total.precision:.3f}, recall {total.recall:.3f}"
            )


def at_threshold(slides: list[tuple[list[Mitosis], list[Mitosis]]], threshold: float) -> Detections:
    units = [matched([m for m in found if m.probability >= threshold], real) for found, real in slides]
    return sum(units, Detections(0, 0, 0))


def matched(found: list[Mitosis], real: list[Mitosis]) -> Detections:
    """One to one within HIT_UM, as many as possible."""
    if not found or not real:
        return Detections(0, len(found), len(real))
    away = np.array([[np.hypot(a.x_um - b.x_um, a.y_um - b.y_um) for b in real] for a in found])
    rows, columns = linear_sum_assignment(np.where(away <= HIT_UM, away, 1e6))
    hits = int((away[rows, columns] <= HIT_UM).sum())
    return Detections(hits, len(found) - hits, len(real) - hits)


def lookalikes(found: list[Mitosis], truth: dict[str, object]) -> dict[str, int]:
    """What the false detections lie on: planted look-alikes, planted dark nuclei, or the unlabelled ground."""
    kinds = {"expert": 0, "mined": 0, "ground": 0}
    objects = truth["objects"]
    for m in found:
        near = [o["kind"] for o in objects if np.hypot(o["x_um"] - m.x_um, o["y_um"] - m.y_um) <= HIT_UM]
        if "mitosis" not in near:
            kinds[near[0] if near else "ground"] += 1
    return kinds


def without_candidates(slide, mask, um, detector, step: int = 16) -> list[Mitosis]:
    """The network fully convolutional over all tissue: every position of its map, 16 px = 4 um apart."""
    found, side = [], 1024
    width, height = slide.size_px
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows = slice(int(top * 0.25 / um), int((top + side) * 0.25 / um) + 1)
            columns = slice(int(left * 0.25 / um), int((left + side) * 0.25 / um) + 1)
            if not mask[rows, columns].any():
                continue
            pixels = slide.read_region((left - 56) * 0.25, (top - 56) * 0.25, side + 112, side + 112, 0.25)
            (chances,) = detector.session.run(None, {"pixels": pixels[None]})
            for i, j in np.argwhere(chances[0] >= 0.3):
                x, y = left + 8 + j * step, top + 8 + i * step
                # The map is coarse: the mean of the mirrored windows decides, as with candidates.
                exact = detector.probabilities(window(pixels, x - left + 56, y - top + 56)[None])[0]
                if exact >= 0.3:
                    found.append(Mitosis(x * 0.25, y * 0.25, float(exact)))
    return suppress(found)


if __name__ == "__main__":
    main()

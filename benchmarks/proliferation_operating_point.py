"""Where to put the detector's two bounds: composed slides of validation cases, in grounds of their own.

    python benchmarks/proliferation_operating_point.py --work work/mitosis --checkpoint second

For the candidates' bound (log-odds of the glance) and the network's threshold: F1 of the planted mitoses, precision, recall, what
the false ones lie on, and how much of the tissue the network sees. Real pixels, synthetic layout. Slides are composed in memory
and coded as JPEG once, as a written one would be. --show writes the likeliest false ones as a picture.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from proliferation_detect import lookalikes, matched

from tamis.agreement import Detections
from tamis.proliferation.candidates import CandidateScorer
from tamis.proliferation.compose import REPEATS, Composer
from tamis.proliferation.detect import Detector, suppress
from tamis.proliferation.fields import UM_PER_PX
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.networks import MitosisNetwork
from tamis.proliferation.publish_mitosis import to_onnx
from tamis.proliferation.windows import WINDOW_PX, window
from tamis.training import load_weights

BOUNDS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.94, 0.95, 0.96, 0.97)
PER_MM2 = (30, 45, 60)
BLOCK_PX = 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("work/mitosis"))
    parser.add_argument("--checkpoint", nargs="+", default=["second"])
    parser.add_argument("--published", action="store_true", help="the detector that ships, not a checkpoint")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help="of one nucleus on a slide; 0: any number"
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=500)
    parser.add_argument("--least", type=float, default=0.0, help="bounds below are not tried")
    parser.add_argument("--show", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    if options.published:
        detector = Detector.published()
        detector.least_candidate = options.least
    else:
        networks = []
        for name in options.checkpoint:
            networks.append(MitosisNetwork().eval())
            networks[-1].load_state_dict(load_weights(options.work / f"{name}.pt"))
        scorer = CandidateScorer.load((options.work / "candidates.npz").read_bytes())
        detector = Detector(to_onnx(networks), scorer, 0.5, options.least)
    slides, tissue_px, false = [], 0, []
    for seed in range(options.seed, options.seed + options.count):
        composer = Composer(data, size_px=options.size, seed=seed, part="validation", repeats=options.repeats)
        pixels = composer.pixels(0, 0, options.size, options.size)
        coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        pixels = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB), np.uint8)
        tissue_px += int(pixels.shape[0] * pixels.shape[1] * (composer.ground.tissue > 0.5).mean())
        slides.append((composer, *looked_at(detector, pixels)))
        false += false_ones(composer, pixels, *slides[-1][1:])
        kinds = [o.kind for o in composer.objects]
        print(
            f"seed {seed}: {kinds.count('mitosis')} mitoses, {kinds.count('expert')} look-alikes", flush=True
        )
    if options.show:
        show(false, options.show)
    mm2 = tissue_px * UM_PER_PX**2 / 1e6
    rules: list[tuple[str, list[float]]] = [
        (f"bound {b:+.1f}", [b] * len(slides)) for b in BOUNDS if b >= options.least
    ]
    for allowed in PER_MM2:  # the bound of each slide that leaves so many
        bounds = []
        for composer, _, scores, _ in slides:
            own = options.size**2 * (composer.ground.tissue > 0.5).mean() * UM_PER_PX**2 / 1e6
            bounds.append(float(np.sort(scores)[-min(len(scores), round(allowed * own))]))
        rules.append((f"the likeliest {allowed} a mm2", bounds))
    for name, bounds in rules:
        kept = [scores >= bound for (_, _, scores, _), bound in zip(slides, bounds, strict=True)]
        seen = sum(
            covered(places[k], options.size) for (_, places, _, _), k in zip(slides, kept, strict=True)
        )
        windows = sum(int(k.sum()) for k in kept)
        print(f"{name}: {windows / mm2:.0f} windows per mm2, {seen / tissue_px:.1%} of the tissue seen")
        for threshold in THRESHOLDS:
            total, kinds = Detections(0, 0, 0), Counter()
            for (composer, places, _, chances), k in zip(slides, kept, strict=True):
                taken = k & (chances >= threshold)
                found = suppress(
                    [
                        Mitosis(x * UM_PER_PX, y * UM_PER_PX, p)
                        for (x, y), p in zip(places[taken], chances[taken], strict=True)
                    ]
                )
                real = [Mitosis(o.x_um, o.y_um, 1.0) for o in composer.objects if o.kind == "mitosis"]
                total += matched(found, real)
                kinds.update(lookalikes(found, composer.truth()))
            print(
                f"    threshold {threshold:.3f}: F1 {total.f1:.3f}, precision {total.precision:.3f}, recall "
                f"{total.recall:.3f}; false: {dict(kinds)}"
            )


def looked_at(detector: Detector, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places [n, 2] in px, log-odds of the glance, and probabilities, of every candidate from the bound on."""
    places, scores, chances = [np.empty((0, 2))], [np.empty(0)], [np.empty(0)]
    margin = WINDOW_PX // 2
    for top in range(0, pixels.shape[0], BLOCK_PX):
        for left in range(0, pixels.shape[1], BLOCK_PX):
            a, b = max(0, left - margin), max(0, top - margin)
            block = pixels[b : top + BLOCK_PX + margin, a : left + BLOCK_PX + margin]
            found, odds, _ = detector.scorer.candidates(block)
            here = found + np.array([a, b])
            inside = ((here >= (left, top)) & (here < (left + BLOCK_PX, top + BLOCK_PX))).all(1)
            found, odds = (
                found[inside & (odds >= detector.least_candidate)],
                odds[inside & (odds >= detector.least_candidate)],
            )
            if len(found):
                places.append(found + np.array([a, b]))
                scores.append(odds)
                chances.append(detector.probabilities(np.stack([window(block, x, y) for x, y in found])))
    return np.concatenate(places), np.concatenate(scores), np.concatenate(chances)


def false_ones(composer, pixels, places, scores, chances) -> list[tuple[float, str, np.ndarray]]:
    """(probability, kind, window) of what is no mitosis, from one half on."""
    known = np.array([(o.x_um, o.y_um) for o in composer.objects]) / UM_PER_PX
    rows = []
    for (x, y), p in zip(places, chances, strict=True):
        away = np.hypot(*(known - (x, y)).T)
        kind = composer.objects[int(away.argmin())].kind if away.min() <= 30 else "ground"
        if p >= 0.5 and kind != "mitosis":
            rows.append((float(p), kind, window(pixels, x, y)))
    return rows


def show(false: list[tuple[float, str, np.ndarray]], path: Path) -> None:
    drawn = []
    for p, kind, picture in sorted(false, key=lambda row: -row[0])[:60]:
        marked = picture[..., ::-1].copy()
        cv2.putText(marked, f"{p:.2f} {kind}", (2, 12), 0, 0.4, (0, 0, 0), 1)
        drawn.append(marked)
    drawn += [np.zeros((WINDOW_PX, WINDOW_PX, 3), np.uint8)] * (-len(drawn) % 10)
    rows = [np.hstack(drawn[i : i + 10]) for i in range(0, len(drawn), 10)]
    cv2.imwrite(str(path), np.vstack(rows))


def covered(places: np.ndarray, size: int) -> int:
    """Pixels that some window around `places` covers."""
    mask, half = np.zeros((size, size), bool), WINDOW_PX // 2
    for x, y in places.astype(int):
        mask[max(0, y - half) : y + half, max(0, x - half) : x + half] = True
    return int(mask.sum())


if __name__ == "__main__":
    main()

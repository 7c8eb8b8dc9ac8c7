"""What a slide's own doubtful nuclei say about its threshold (`tamis.proliferation.prevalence`), on composed validation slides.

    python benchmarks/proliferation_evidence.py --count 8 --seed 610

Of each slide only the planted nuclei are composed and looked at, with what surrounds them: all mitoses and look-alikes, and
about half of the other dark nuclei, which count twice. Real pixels, synthetic layout. Prints the ratio of densities that ships,
F1 with it fitted on the other slides against one threshold for all, and how many mitoses each slide is thought to hold.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression

from tamis.proliferation.candidates import dark_nuclei, glances_at, samples_at
from tamis.proliferation.compose import Composer
from tamis.proliferation.detect import Detector
from tamis.proliferation.fields import UM_PER_PX
from tamis.proliferation.prevalence import DOUBTFUL, Evidence, logit
from tamis.proliferation.windows import window

HALF_PX, HIT_PX = 112, 30
LEAST_ODDS = 1.5  # about where the budget of windows ends on most slides
OTHERS, COUNTED = 500, 2  # of some 1,000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=610)
    parser.add_argument("--size", type=int, default=20_000)
    options = parser.parse_args()
    data = Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    detector = Detector.published()
    slides = []
    for seed in range(options.seed, options.seed + options.count):
        composer = Composer(data, size_px=options.size, seed=seed, part="validation")
        slides.append(looked_at(composer, detector))
        planted, _, mitotic, _ = slides[-1]
        print(f"seed {seed}: {planted} mitoses planted, {int(mitotic.sum())} looked at", flush=True)
    print("of all slides:", fitted(slides))
    total = dict.fromkeys(("fixed", "own"), (0, 0.0))
    for held, (planted, chances, mitotic, weight) in enumerate(slides):
        evidence = fitted([s for i, s in enumerate(slides) if i != held])
        doubtful = np.repeat(chances, weight)[np.repeat(chances, weight) >= DOUBTFUL]
        own = evidence.threshold(doubtful)
        for name, threshold in (("fixed", detector.threshold), ("own", own)):
            taken = chances >= threshold
            hits, false = total[name]
            total[name] = hits + int((taken & mitotic).sum()), false + float(weight[taken & ~mitotic].sum())
        expected = evidence.share(doubtful) * len(doubtful)
        print(
            f"slide {held}: {planted} planted, {expected:.1f} expected among the doubtful, threshold {own:.3f}"
        )
    for name, (hits, false) in total.items():
        f1 = 2 * hits / (hits + false + sum(s[0] for s in slides))
        print(f"{name} threshold: F1 {f1:.3f}, {hits} hits, {false:.0f} false")


def looked_at(composer: Composer, detector: Detector) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Mitoses planted; of what the sieves leave: probability, whether it is a mitosis, how often it counts."""
    planted = [(i, o.kind) for i, o in enumerate(composer.objects) if o.kind != "mined"]
    mined = [i for i, o in enumerate(composer.objects) if o.kind == "mined"]
    some = np.random.default_rng(composer.seed).permutation(len(mined))[:OTHERS]
    windows, mitotic, weight = [], [], []
    for i, kind in [*planted, *((mined[j], "mined") for j in some)]:
        o = composer.objects[i]
        left, top = round(o.x_um / UM_PER_PX) - HALF_PX, round(o.y_um / UM_PER_PX) - HALF_PX
        pixels = composer.pixels(left, top, 2 * HALF_PX, 2 * HALF_PX)
        coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        pixels = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB), np.uint8)
        places = dark_nuclei(pixels)
        places = places[np.hypot(*(places - HALF_PX).T) <= HIT_PX]
        if not len(places):
            continue
        scores = detector.scorer(samples_at(pixels, places))
        assert detector.scorer.glance is not None
        odds = detector.scorer.glance(glances_at(pixels, places)) + 0.5 * scores
        if odds.max() >= LEAST_ODDS:
            windows.append(window(pixels, *places[int(odds.argmax())]))
            mitotic.append(kind == "mitosis")
            weight.append(COUNTED if kind == "mined" else 1)
    chances = detector.probabilities(np.stack(windows))
    mitoses = sum(kind == "mitosis" for _, kind in planted)
    return mitoses, chances, np.array(mitotic), np.array(weight)


def fitted(slides: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> Evidence:
    """Logistic regression on the doubtful nuclei, without their own share of mitoses."""
    chances, mitotic, weight = (np.concatenate([s[i] for s in slides]) for i in (1, 2, 3))
    some = chances >= DOUBTFUL
    x, y, w = logit(chances[some])[:, None], mitotic[some], weight[some]
    model = LogisticRegression(C=1e3).fit(x, y, w)
    share = np.log(w[y].sum() / w[~y].sum())
    return Evidence(round(float(model.coef_[0, 0]), 3), round(float(model.intercept_[0] - share), 3))


if __name__ == "__main__":
    main()

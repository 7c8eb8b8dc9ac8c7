"""Which weights, and which threshold on slides: several networks on the same candidates of whole composed validation slides.

    python benchmarks/proliferation_weights.py --work work/mitosis --count 8 --seed 640 --shares 0 0.25 0.5 1 --together

The weights that were trained on from (WORK/start.onnx) and those at the end (WORK/second.pt) are averaged with each of the
shares; --together adds the mean of both networks' probabilities. Each slide is composed, searched and deleted once, with the
sieves of WORK/candidates.npz, and the windows that the network would see are kept in WORK/windows: started again, it goes on.
Real pixels, synthetic layout. Prints for each network, from 0.5 on, F1 of the planted mitoses, what the false ones lie on, error
of the count in the hot spot, kappa with `tupac` and rho; then what a threshold for each slide by its own doubtful nuclei would do
(Saerens 2002), the ratio of densities fitted on the other slides.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from tamis.agreement import confusion, quadratic_kappa_interval, spearman
from tamis.proliferation.candidates import CandidateScorer
from tamis.proliferation.compose import Composer, write_slide
from tamis.proliferation.detect import CANDIDATES, FOLDER, Detector, detect, suppress
from tamis.proliferation.grading import TUPAC
from tamis.proliferation.hotspot import hot_spot
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.publish_mitosis import averaged, to_onnx
from tamis.proliferation.train_mitosis import network_of
from tamis.slides import open_slide
from tamis.weights import load, sha256_of

THRESHOLDS = (0.5, 0.7, 0.8, 0.85, 0.88, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98)
HIT_UM, DOUBTFUL = 7.5, 0.5


@dataclass
class Looked:
    """A slide: what the network would see, and what is planted there."""

    places_um: np.ndarray
    windows: np.ndarray
    named: np.ndarray
    """Of each place: `mitosis N`, expert, mined or ground."""
    planted: int
    hot_spot_count: int
    mitotic_score: int


class Keeping(Detector):
    """Sees nothing itself: keeps the windows, and calls each of them likelier than the one before."""

    def __init__(self, scorer: CandidateScorer, windows_per_mm2: float, least: float) -> None:
        self.scorer, self.windows_per_mm2, self.least_candidate = scorer, windows_per_mm2, least
        self.threshold = self.field_threshold = 0.0
        self.kept: list[np.ndarray] = []

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        first = sum(map(len, self.kept))
        self.kept.append(windows)
        return 1e-6 * np.arange(first + 1, first + len(windows) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("work/mitosis"))
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25], help="of the start's weights")
    parser.add_argument(
        "--together", action="store_true", help="also the mean of both networks' probabilities"
    )
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=640)
    parser.add_argument("--size", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    slides = [looked(seed, options) for seed in range(options.seed, options.seed + options.count)]
    start, end = network_of(options.work / "start.onnx"), network_of(options.work / "second.pt")
    seen: dict[str, list[np.ndarray]] = {}
    for share in options.shares:
        detector = Detector(to_onnx([averaged(end, start, share).eval()]), None, 0.0, 0.0)  # type: ignore[arg-type]
        seen[f"{share:g} of the start"] = [detector.probabilities(s.windows) for s in slides]
        report(f"{share:g} of the start", slides, seen[f"{share:g} of the start"])
    if options.together:
        both = [(a + b) / 2 for a, b in zip(seen["0 of the start"], seen["1 of the start"], strict=True)]
        report("mean of both networks", slides, both)


def looked(seed: int, options: argparse.Namespace) -> Looked:
    file = options.work / "candidates.npz"
    kept = options.work / "windows" / f"{options.size}-{seed}-{sha256_of(file)[:8]}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        data = Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
        composer = Composer(data, size_px=options.size, seed=seed, part="validation")
        path = kept.with_suffix(".tif")
        truth = write_slide(composer, path)
        point = load(FOLDER / f"{CANDIDATES}.json").operating_point
        keeping = Keeping(
            CandidateScorer.load(file.read_bytes()),
            point.get("windows_per_mm2", math.inf),
            point["least_log_odds"],
        )
        with open_slide(path) as slide:
            found = everything(slide, keeping)
        path.unlink()
        objects = truth["objects"]
        known = np.array([(o["x_um"], o["y_um"]) for o in objects])
        named = []
        for x, y in found:
            away = np.hypot(*(known - (x, y)).T)
            near = [int(i) for i in np.argsort(away) if away[i] <= HIT_UM]
            real = [f"mitosis {i}" for i in near if objects[i]["kind"] == "mitosis"]
            named.append((real + [objects[i]["kind"] for i in near] + ["ground"])[0])
        planted = sum(o["kind"] == "mitosis" for o in objects)
        counts = [planted, truth["hot_spot_count"], truth["mitotic_score"]]
        np.savez(kept, places=found, windows=np.concatenate(keeping.kept), named=named, counts=counts)
        print(f"seed {seed}: {planted} mitoses planted, {len(found)} windows", flush=True)
    with np.load(kept) as stored:
        return Looked(stored["places"], stored["windows"], stored["named"], *map(int, stored["counts"]))


def everything(slide, keeping: Keeping) -> np.ndarray:
    """Where the network would look, in the order in which it was asked."""
    from tamis.proliferation import detect as module

    whole, module.suppress = module.suppress, lambda mitoses: list(mitoses)
    try:
        found = detect(slide, threshold=0.0, as_slide=True, detector=keeping)
    finally:
        module.suppress = whole
    return np.array([(m.x_um, m.y_um) for m in sorted(found, key=lambda m: m.probability)]).reshape(-1, 2)


def marks(slide: Looked, chances: np.ndarray) -> list[tuple[Mitosis, str]]:
    """From DOUBTFUL on, suppressed as on a slide, the likeliest first."""
    some = np.flatnonzero(chances >= DOUBTFUL)
    of = {Mitosis(*slide.places_um[i], float(chances[i])): str(slide.named[i]) for i in some}
    return [(m, of[m]) for m in suppress(list(of))]


def report(name: str, slides: list[Looked], seen: list[np.ndarray]) -> None:
    found = [marks(slide, chances) for slide, chances in zip(slides, seen, strict=True)]
    print(f"{name}: {len(slides)} slides, {sum(s.planted for s in slides)} mitoses")
    for threshold in THRESHOLDS:
        tell(f"{threshold:.3f}", slides, found, [threshold] * len(slides))
    for highest in (0.95, 0.99):
        own = [own_threshold(found, held, highest) for held in range(len(slides))]
        tell(f"each its own, {min(own):.2f} to {max(own):.2f}", slides, found, own)


def tell(
    rule: str, slides: list[Looked], found: list[list[tuple[Mitosis, str]]], bounds: list[float]
) -> None:
    hits, kinds, counts = 0, Counter[str](), []
    for some, bound in zip(found, bounds, strict=True):
        kept = [(m, name) for m, name in some if m.probability >= bound]
        hits += len({name for _, name in kept if name.startswith("mitosis")})
        kinds.update(name for _, name in kept if not name.startswith("mitosis"))
        spot = hot_spot([m for m, _ in kept], TUPAC.area_mm2)
        counts.append(spot.count if spot else 0)
    planted, false = sum(s.planted for s in slides), sum(kinds.values())
    true, count = np.array([s.hot_spot_count for s in slides]), np.array(counts)
    matrix = confusion(
        np.array([s.mitotic_score for s in slides]), np.array([TUPAC.score(c) for c in counts]), (1, 2, 3)
    )
    print(
        f"  {rule}: F1 {2 * hits / (hits + false + planted):.3f}, recall {hits / planted:.3f}, false {false} {dict(kinds)}; "
        f"count {np.mean(count - true):+.2f} (absolute {np.abs(count - true).mean():.2f}), kappa "
        f"{quadratic_kappa_interval(matrix).value:.3f}, rho {spearman(true, count):.3f}",
        flush=True,
    )


def own_threshold(found: list[list[tuple[Mitosis, str]]], held: int, highest: float) -> float:
    """Where both kinds are equally likely on slide `held`, by its share of mitoses among the doubtful (expectation and
    maximisation) and the ratio of densities that the others have."""
    others = [row for n, some in enumerate(found) if n != held for row in some]
    x = logit(np.array([m.probability for m, _ in others]))
    y = np.array([name.startswith("mitosis") for _, name in others])
    model = LogisticRegression(C=1e3).fit(x[:, None], y)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0] - np.log(y.sum() / (~y).sum()))
    own = logit(np.array([m.probability for m, _ in found[held]]))
    ratio, share = np.exp(slope * own + offset), 0.5
    for _ in range(200):
        posterior = share * ratio / (share * ratio + 1 - share)
        share = float((posterior.sum() + 0.5) / (len(ratio) + 1))
    at = (np.log((1 - share) / share) - offset) / slope
    return float(np.clip(1 / (1 + np.exp(-at)), 0.8, highest))


def logit(p: np.ndarray) -> np.ndarray:
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(inside / (1 - inside))


if __name__ == "__main__":
    main()

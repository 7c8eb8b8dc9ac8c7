"""Scores of composed slides against what was planted in them. Run: python benchmarks/proliferation_composed.py SLIDES RESULTS

SLIDES holds STEM.truth.json, which `tamis proliferation compose` wrote beside each slide; RESULTS is what `tamis
proliferation score SLIDES -o RESULTS` wrote. Composed slides are real pixels in a synthetic layout: a test instrument.
Prints, with 95 % intervals over slides: F1 of the mitoses, the error of the count, kappa of the mitotic score with the preset
`tupac`, rho of the density against the planted count, and rho of PAM50 as far as the composed rows allow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tamis.agreement import (
    Estimate,
    confusion,
    f1_interval,
    fisher_interval,
    quadratic_kappa_interval,
    spearman,
)
from tamis.errors import TrainingError
from tamis.proliferation import train_score
from tamis.proliferation.features import NAMES
from tamis.proliferation.matching import match


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slides", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--scores-only", action="store_true", help="leave out the machines on the 21 features"
    )
    options = parser.parse_args()
    pairs = []
    for path in sorted(options.slides.glob("*.truth.json")):
        folder = options.results / path.name.removesuffix(".truth.json")
        if (folder / "score.json").exists():
            record = json.loads((folder / "score.json").read_text())
            found = json.loads((folder / "mitoses.geojson").read_text())
            pairs.append((json.loads(path.read_text()), record, found))
    n = len(pairs)
    if n < 4:
        raise SystemExit(f"{n} slides have both a truth and a result: at least four are needed.")
    generator = np.random.default_rng(0)
    counts = np.array([counted(truth, record, found) for truth, record, found in pairs])
    planted = np.array([truth["hot_spot_count"] for truth, *_ in pairs])
    given = np.array([record["count"] for _, record, _ in pairs])
    score = np.array([truth["mitotic_score"] for truth, *_ in pairs])
    pam50 = np.array([truth["pam50_proliferation"] for truth, *_ in pairs])
    called = np.array([record["mitotic_score"] for _, record, _ in pairs])
    density = np.array([record["mitoses_per_mm2"] for _, record, _ in pairs])
    print(
        f"{n} composed slides (real pixels, synthetic layout); scores 1 2 3: {np.bincount(score)[1:].tolist()}"
    )
    tell("F1 of mitoses", f1_interval(counts, generator=generator))
    true, false, missed = counts.sum(0)
    print(
        f"  precision {true / (true + false):.3f}, recall {true / (true + missed):.3f}; {true + missed} planted"
    )
    error = given - planted
    print(f"count in the hot spot: mean error {error.mean():+.2f}, mean absolute {np.abs(error).mean():.2f}")
    inside = np.mean([r["count_low"] <= t["hot_spot_count"] <= r["count_high"] for t, r, _ in pairs])
    print(f"  the planted count lies in the interval on {inside:.0%} of the slides")
    tell("kappa, tupac", quadratic_kappa_interval(confusion(score, called, (1, 2, 3))))
    tell("rho, density and planted count", fisher_interval(spearman(planted, density), n))
    tell("rho, true score and PAM50", fisher_interval(spearman(score, pam50), n))
    tell("rho, density and PAM50", fisher_interval(spearman(density, pam50), n))
    if options.scores_only:
        return
    features = np.array([[record["features"][name] for name in NAMES] for _, record, _ in pairs])
    try:
        _, estimates, _ = train_score.train(features, score.astype(float), pam50)
    except TrainingError as fault:
        print(f"SVM and SVR: {fault}")
        return
    tell("SVM on 21 features, nested: kappa", estimates["task1"])
    tell("SVR on 21 features, nested: rho", estimates["task2"])


def counted(truth: dict, record: dict, found: dict) -> tuple[int, int, int]:  # type: ignore[type-arg]
    """True positives, false positives and false negatives inside the searched regions."""
    scale = record["provenance"]["um_per_px"]
    points = [f["geometry"]["coordinates"] for f in found["features"] if f["geometry"]["type"] == "Point"]
    places = np.array(points, float).reshape(-1, 2) * scale
    objects = truth["objects"]
    planted = np.array([(o["x_um"], o["y_um"]) for o in objects if o["kind"] == "mitosis"], float)
    matched = match(places, planted.reshape(-1, 2))
    return matched.true_positives, matched.false_positives, matched.false_negatives


def tell(name: str, estimate: Estimate) -> None:
    print(f"{name:<36} {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]  n = {estimate.n}")


if __name__ == "__main__":
    main()

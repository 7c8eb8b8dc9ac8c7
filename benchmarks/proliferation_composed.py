"""Whole scoring of composed slides (real pixels, synthetic layout) of cases and grounds that nothing was trained or tuned on.

    python benchmarks/proliferation_composed.py --count 60 --size 20000 --work work/composed60
    python benchmarks/proliferation_composed.py --work work/composed60 --report

One slide at a time is composed, scored and deleted; its line goes into journal.jsonl. Started again, it goes on where it was
stopped; a line made with other weights is not counted. Several may run at once with other ranges of --seed and --count. Prints,
with 95 % intervals over slides: F1 of the mitoses, what the false ones lie on and how many different nuclei those are, the error
of the count, kappa of the mitotic score with the preset `tupac`, rho of the density and of the score against the planted count,
rho of PAM50 as far as the rows allow, and what a slide costs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from proliferation_detect import HIT_UM, lookalikes, matched

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
from tamis.proliferation.compose import REPEATS, Composer, write_slide
from tamis.proliferation.detect import FOLDER, NETWORK
from tamis.proliferation.features import NAMES
from tamis.proliferation.fields import UM_PER_PX
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.score import score_slide
from tamis.weights import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help="of one nucleus on a slide; 0: any number"
    )
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--cases", default="test")
    parser.add_argument("--work", type=Path, default=Path("work/composed60"))
    parser.add_argument("--report", action="store_true", help="of what has been scored so far")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    journal = options.work / "journal.jsonl"
    weights = load(FOLDER / f"{NETWORK}.json")
    recipe = {
        "weights": weights.sha256,
        "threshold": weights.operating_point["threshold"],
        "size_px": options.size,
        "cases": options.cases,
        "repeats": options.repeats,
    }
    for seed in [] if options.report else range(options.seed, options.seed + options.count):
        if seed not in {line["seed"] for line in scored(journal, recipe)}:
            line = one_slide(seed, options)
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(recipe | line) + "\n")
            shown = "planted", "found", "hits", "false", "hot_spot_count", "count", "mitotic_score", "called"
            print(f"seed {seed}: " + ", ".join(f"{name} {line[name]}" for name in shown), flush=True)
    report(scored(journal, recipe))


def scored(journal: Path, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines made with this recipe, the last of each seed."""
    lines = {}
    for text in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
        line = json.loads(text)
        if recipe.items() <= line.items():
            lines[line["seed"]] = line
    return [lines[seed] for seed in sorted(lines)]


def one_slide(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    data = Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    path = options.work / f"composed-{seed}.tif"
    begun = time.process_time()
    composer = Composer(data, size_px=options.size, seed=seed, part=options.cases, repeats=options.repeats)
    truth = write_slide(composer, path)
    composing = time.process_time() - begun
    begun = time.process_time()
    found = score_slide(path)
    scoring = time.process_time() - begun
    megabytes = path.stat().st_size / 1e6
    path.unlink()
    real = [Mitosis(o["x_um"], o["y_um"], 1.0) for o in truth["objects"] if o["kind"] == "mitosis"]
    unit = matched(found.mitoses, real)
    pam50 = found.predicted.get("pam50_proliferation")
    return {
        "seed": seed,
        "planted": len(real),
        "planted_lookalikes": sum(o["kind"] == "expert" for o in truth["objects"]),
        "found": len(found.mitoses),
        "hits": unit.true_positives,
        "false": lookalikes(found.mitoses, truth),
        "marks": [
            (round(m.x_um, 1), round(m.y_um, 1), round(m.probability, 4), name)
            for m, name in zip(found.mitoses, figures(composer, found.mitoses), strict=True)
        ],
        "mitotic_score": truth["mitotic_score"],
        "pam50_proliferation": truth["pam50_proliferation"],
        "hot_spot_count": truth["hot_spot_count"],
        "count": found.count,
        "count_low": found.interval[0],
        "count_high": found.interval[1],
        "called": found.mitotic_score,
        "per_mm2": found.per_mm2,
        "pam50_predicted": pam50.value if pam50 else None,
        "tissue_mm2": found.tissue_mm2,
        "features": [found.features[name] for name in NAMES],
        "detector": found.detector,
        "cpu_s_composing": composing,
        "cpu_s_scoring": scoring,
        "megabytes": megabytes,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def figures(composer: Composer, found: list[Mitosis]) -> list[str]:
    """What each detection shows: a planted mitosis by its number, a nucleus of a case, or a place in a texture to 8 um."""
    known = np.array([(o.x_um, o.y_um) for o in composer.objects])
    named = []
    for m in found:
        away = np.hypot(*(known - (m.x_um, m.y_um)).T)
        near = [int(i) for i in np.argsort(away) if away[i] <= HIT_UM]
        real = [i for i in near if composer.objects[i].kind == "mitosis"]
        if real:
            named.append(f"mitosis {real[0]}")
        elif near:
            field, x, y = composer.source(near[0])
            named.append(f"{composer.objects[near[0]].kind} {field.name} {x:.0f} {y:.0f}")
        else:
            texture, x, y = composer.ground.origin(round(m.x_um / UM_PER_PX), round(m.y_um / UM_PER_PX))
            named.append(f"ground {texture} {x // 32} {y // 32}")
    return named


def report(lines: list[dict[str, Any]]) -> None:
    n = len(lines)
    if n < 4:
        raise SystemExit(f"{n} slides are scored with these weights: at least four are needed.")
    generator = np.random.default_rng(0)

    def column(name: str) -> np.ndarray:
        return np.array([line[name] for line in lines])

    score = column("mitotic_score")
    print(
        f"{n} composed slides (real pixels, synthetic layout) of {lines[0]['size_px']} px, cases: {lines[0]['cases']}; "
        f"scores 1 2 3: {np.bincount(score, minlength=4)[1:].tolist()}; {platform.machine()}"
    )
    hits, found, planted = column("hits"), column("found"), column("planted")
    tell("F1 of mitoses", f1_interval(np.stack([hits, found - hits, planted - hits], 1), generator=generator))
    kinds = {kind: sum(line["false"][kind] for line in lines) for kind in lines[0]["false"]}
    print(
        f"  precision {hits.sum() / max(1, found.sum()):.3f}, recall {hits.sum() / planted.sum():.3f}; {planted.sum()} planted "
        f"beside {column('planted_lookalikes').sum()} look-alikes; false: {kinds}"
    )
    named = Counter(mark[3] for line in lines for mark in line["marks"])
    for kind in kinds:
        own = Counter({name: n for name, n in named.items() if name.startswith(kind)})
        print(
            f"  {kind}: {len(own)} different figures, the three commonest {[n for _, n in own.most_common(3)]} times"
        )
    error = column("count") - column("hot_spot_count")
    print(
        f"count in the hot spot: mean error {error.mean():+.2f}, mean absolute {np.abs(error).mean():.2f}, planted "
        f"{column('hot_spot_count').mean():.1f} on average"
    )
    inside = (column("count_low") <= column("hot_spot_count")) & (
        column("hot_spot_count") <= column("count_high")
    )
    print(f"  the planted count lies in the interval on {inside.mean():.0%} of the slides")
    matrix = confusion(score, column("called"), (1, 2, 3))
    tell("kappa, tupac", quadratic_kappa_interval(matrix))
    print(f"  rows planted, columns called: {np.asarray(matrix).astype(int).tolist()}")
    tell(
        "rho, density and planted count",
        fisher_interval(spearman(column("hot_spot_count"), column("per_mm2")), n),
    )
    tell(
        "rho, score and planted count",
        fisher_interval(spearman(column("hot_spot_count"), column("called")), n),
    )
    pam50 = column("pam50_proliferation")
    tell("rho, true score and PAM50", fisher_interval(spearman(score, pam50), n))
    tell("rho, density and PAM50", fisher_interval(spearman(column("per_mm2"), pam50), n))
    tissue = column("tissue_mm2").sum()
    spent = [
        sum(line["detector"][f"seconds_{part}"] for line in lines)
        for part in ("reading", "candidates", "network")
    ]
    total = column("cpu_s_scoring").sum()
    print(
        f"scoring: {total / tissue * 100:.0f} CPU s per cm2 of tissue (one thread), {total / n:.0f} s a slide; of the "
        f"detection: reading {spent[0] / sum(spent):.0%}, candidates {spent[1] / sum(spent):.0%}, network "
        f"{spent[2] / sum(spent):.0%}; composing {column('cpu_s_composing').mean():.0f} s, "
        f"{column('megabytes').mean():.0f} MB; {column('peak_gib').max():.2f} GiB at most"
    )
    seen = np.mean([line["detector"]["share_of_pixels_seen"] for line in lines])
    windows = sum(line["detector"]["windows"] for line in lines) / tissue
    print(f"the network saw {seen:.1%} of the pixels searched, {windows:.0f} windows per mm2 of tissue")
    try:
        _, estimates, _ = train_score.train(
            np.array([line["features"] for line in lines]), score.astype(float), pam50
        )
    except TrainingError as fault:
        print(f"SVM and SVR: {fault}")
        return
    tell("SVM on 21 features, nested: kappa", estimates["task1"])
    tell("SVR on 21 features, nested: rho", estimates["task2"])


def tell(name: str, estimate: Estimate) -> None:
    print(f"{name:<36} {estimate.value:.3f} {estimate.interval()}  n = {estimate.n}")


if __name__ == "__main__":
    main()

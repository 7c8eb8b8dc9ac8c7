"""python -m pytest tests/benchmarks/test_proliferation_composed.py"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tamis.proliferation.detect import FOLDER, NETWORK
from tamis.weights import load

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "proliferation_composed.py"


def scored(seed: int, planted: int, missed: int, false: int) -> dict[str, Any]:
    """The journal's line of a slide with `planted` mitoses, all in the hot spot, and what a reader missed and invented."""
    weights = load(FOLDER / f"{NETWORK}.json")
    found = planted - missed + false

    def mitotic_score(count: int) -> int:
        return 1 if count < 6 else 2 if count < 11 else 3

    return {
        "weights": weights.sha256,
        "threshold": weights.operating_point["threshold"],
        "size_px": 512,
        "cases": "test",
        "repeats": 2,
        "seed": seed,
        "planted": planted,
        "planted_lookalikes": 1,
        "found": found,
        "hits": planted - missed,
        "false": {"expert": false, "ground": 0},
        "marks": [
            *((40.0 * n, 0.0, 0.99 - 0.01 * n, f"mitosis {n}") for n in range(planted - missed)),
            *((900.0, 900.0, 0.6, "expert atypical/A.jpg 64 64") for _ in range(false)),
        ],
        "mitotic_score": mitotic_score(planted),
        "pam50_proliferation": planted / 10,
        "hot_spot_count": planted,
        "count": found,
        "count_low": found - 3,
        "count_high": found + 3,
        "called": mitotic_score(found),
        "per_mm2": found / 2,
        "pam50_predicted": None,
        "tissue_mm2": 2.0,
        "features": [float(found)] * 21,
        "detector": {
            "seconds_reading": 1.0,
            "seconds_candidates": 2.0,
            "seconds_network": 1.0,
            "share_of_pixels_seen": 0.05,
            "windows": 100,
        },
        "cpu_s_composing": 1.0,
        "cpu_s_scoring": 4.0,
        "megabytes": 1.0,
        "peak_gib": 0.5,
    }


def report(work: Path, lines: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (work / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [
        sys.executable,
        str(PROGRAM),
        "--work",
        str(work),
        "--size",
        "512",
        "--repeats",
        "2",
        "--report",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


SLIDES = [
    scored(n, *slide) for n, slide in enumerate([(3, 0, 0), (8, 1, 0), (14, 0, 1), (20, 2, 0)])
]  # (planted, missed, false)


def test_what_was_planted_is_compared_with_what_was_found(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = report(tmp_path, SLIDES).stdout
    assert "4 composed slides (real pixels, synthetic layout) of 512 px" in printed
    assert "scores 1 2 3: [1, 1, 2]" in printed
    assert "precision 0.977, recall 0.933; 45 planted" in printed  # 42 of 43 found are planted
    assert "expert: 1 different figures, the three commonest [1] times" in printed
    assert "mean error -0.50, mean absolute 1.00" in printed
    assert "lies in the interval on 100% of the slides" in printed
    assert "kappa, tupac                         1.000" in printed
    assert "200 CPU s per cm2 of tissue" in printed  # 4 s on 2 mm2


def test_slides_of_other_weights_are_not_counted(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    done = report(tmp_path, [*SLIDES[:3], SLIDES[3] | {"weights": "0" * 64}])
    assert done.returncode == 1
    assert done.stderr == "3 slides are scored with these weights: at least four are needed.\n"

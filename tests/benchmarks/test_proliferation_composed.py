"""python -m pytest tests/benchmarks/test_proliferation_composed.py"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "proliferation_composed.py"


def put(folder: Path, n: int, planted: int, missed: int, false: int) -> None:
    """One composed slide with `planted` mitoses, and a result that misses and invents some."""
    places = [(100.0 * i + 50, 200.0) for i in range(planted)]
    truth = {
        "mitotic_score": 1 if planted < 6 else 2 if planted < 11 else 3,
        "pam50_proliferation": planted / 10,
        "hot_spot_count": planted,
        "objects": [{"x_um": x, "y_um": y, "kind": "mitosis"} for x, y in places]
        + [{"x_um": 10.0, "y_um": 900.0, "kind": "expert"}],
    }
    found = places[missed:] + [(50.0, 1000.0 + 20 * i) for i in range(false)]
    record = {
        "count": len(found),
        "count_low": len(found) - 3,
        "count_high": len(found) + 3,
        "mitotic_score": 1 if len(found) < 6 else 2 if len(found) < 11 else 3,
        "mitoses_per_mm2": len(found) / 2,
        "features": {},
        "provenance": {"um_per_px": 0.25},
    }
    points = [{"geometry": {"type": "Point", "coordinates": [x / 0.25, y / 0.25]}} for x, y in found]
    (folder / "slides").mkdir(exist_ok=True)
    result = folder / "results" / f"s{n}"
    result.mkdir(parents=True)
    (folder / "slides" / f"s{n}.truth.json").write_text(json.dumps(truth))
    (result / "score.json").write_text(json.dumps(record))
    (result / "mitoses.geojson").write_text(json.dumps({"features": points}))


@pytest.fixture
def printed(tmp_path: Path) -> str:
    pytest.importorskip("sklearn")
    for n, (planted, missed, false) in enumerate([(3, 0, 0), (8, 1, 0), (14, 0, 1), (20, 2, 0)]):
        put(tmp_path, n, planted, missed, false)
    command = [
        sys.executable,
        str(PROGRAM),
        str(tmp_path / "slides"),
        str(tmp_path / "results"),
        "--scores-only",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_what_was_planted_is_compared_with_what_was_found(printed: str) -> None:
    assert "4 composed slides (real pixels, synthetic layout); scores 1 2 3: [1, 1, 2]" in printed
    assert "precision 0.977, recall 0.933; 45 planted" in printed  # 42 of 43 found are planted
    assert "mean error -0.50, mean absolute 1.00" in printed
    assert "lies in the interval on 100% of the slides" in printed
    assert "kappa, tupac                         1.000" in printed

"""Rows side by side, and settings that the other folds choose.  python -m pytest tests/weakseg/test_compare.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.errors import UsageError
from tamis.weakseg import compare
from tamis.weakseg.compare import Curves, curves, estimate, nested_settings, spread
from tamis.weakseg.evaluate import LEVELS, Maps
from tamis.weakseg.images import read_mask
from tamis.weakseg.labels import Dataset, read_dataset
from tamis.weakseg.maps import write_map
from tamis.weakseg.metrics import FIGURES, Scored


def scored(index: int, hits: int, *, positive: bool = True) -> Scored:
    return Scored(f"{index}", f"{index}", positive, hits, 100 - hits, 100 - hits, 800 + hits, 10.0)


def test_a_row_is_the_mean_of_its_seeds() -> None:
    seeds = [[scored(i, 60 + i) for i in range(10)], [scored(i, 70 + i) for i in range(10)]]
    found = estimate([seeds], "pooled_f1")
    expected = np.mean([FIGURES["pooled_f1"](images) for images in seeds])
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert spread(seeds, "pooled_f1") == pytest.approx(0.1 / np.sqrt(2))


def test_differences_are_drawn_pairwise() -> None:
    """Rows that differ by the same on every image differ surely, however much images differ from each other."""
    hard = np.random.default_rng(0).integers(10, 90, 30)
    better, worse = ([scored(i, int(h) + gain) for i, h in enumerate(hard)] for gain in (2, 0))
    alone = estimate([[better]], "pooled_f1")
    difference = estimate([[better], [worse, worse]], "pooled_f1")
    assert difference.value == pytest.approx(0.02)
    assert difference.low == pytest.approx(0.02) and difference.high == pytest.approx(0.02)
    assert alone.high - alone.low > 0.05


def test_curves_count_what_lies_above_each_threshold(dataset: Path, tmp_path: Path) -> None:
    found = read_dataset(dataset)
    generator = np.random.default_rng(1)
    for image in found.images:
        write_map(generator.random((64, 96)).astype(np.float32), tmp_path / f"{image.name}.png")
    maps = Maps((tmp_path,))
    counted = curves(found, maps)
    for level in (20, 99, 150):
        marked, truth = maps.of(found.images[2]) > LEVELS[level], read_mask(found.images[2].mask)
        assert counted[2, 0, level] == pytest.approx((marked & truth).sum(), abs=2)
        assert counted[2, 1, level] == pytest.approx(marked.sum(), abs=2)
        assert counted[2, 2, level] == truth.sum()


def planes(true_share: float) -> Curves:
    """Eight images of 100 px, the first four with 40 of cancer: above a threshold t lies 1 - t of what is marked at 0."""
    found = np.zeros((8, 4, len(LEVELS)))
    found[:4, 0] = 40 * true_share * (1 - LEVELS)
    found[:, 1] = 100 * (1 - LEVELS)
    found[:4, 1] = 40 * (1 - LEVELS)
    found[:4, 2], found[:, 3] = 40, 100
    return found


def test_a_fold_has_no_say_in_its_own_settings(dataset: Path) -> None:
    found = read_dataset(dataset)
    held_out = [[0, 4], [1, 5], [2, 6], [3, 7]]
    radii = [planes(0.6), planes(0.9)]
    before = nested_settings(found, radii, held_out, shares=(0.1, 0.3))
    assert (
        before == [(1, 0.3, pytest.approx(0.7, abs=0.006))] * 4
    )  # the better filter, and the share that finds more
    radii[1][[0, 4], :2] = 0  # ruins the better filter on fold 0
    after = nested_settings(found, radii, held_out, shares=(0.1, 0.3))
    assert after[0] == before[0]


def test_where_no_threshold_spares_the_negatives_nothing_is_marked(dataset: Path) -> None:
    saturated = planes(0.6)
    saturated[4:, 1] = 100
    chosen = nested_settings(read_dataset(dataset), [saturated], [[0, 4], [1, 5]], shares=(0.1, 0.3))
    assert [threshold for _, _, threshold in chosen] == [1.0, 1.0]


def test_the_table_holds_every_row(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: Dataset = read_dataset(dataset)
    for run, noise in (("good", 0.1), ("bad", 0.8)):
        generator = np.random.default_rng(2)
        for image in found.images:
            truth = read_mask(image.mask).astype(np.float32)
            plane = np.clip((1 - noise) * truth + noise * generator.random(truth.shape), 0, 1)
            write_map(plane.astype(np.float32), tmp_path / run / "maps" / f"{image.name}.png")
    compare.main(
        [
            str(dataset),
            f"good={tmp_path / 'good'}",
            f"bad={tmp_path / 'bad'}",
            "--refine",
            "2",
            "--nested",
            "--folds",
            "4",
        ]
    )
    told = capsys.readouterr().out
    assert all(treatment in told for treatment in compare.TREATMENTS)
    assert told.count("| good |") == 4 and told.count("| all foreground |") == 3
    assert "good - bad, pooled_f1: +" in told
    with pytest.raises(UsageError, match="NAME=RUN"):
        compare.main([str(dataset), "good"])

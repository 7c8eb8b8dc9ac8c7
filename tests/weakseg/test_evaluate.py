"""Thresholds that are chosen elsewhere, and refined maps.  python -m pytest tests/weakseg/test_evaluate.py"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from saved import save, write_table

from tamis.cli import main
from tamis.errors import InputError
from tamis.weakseg.evaluate import Maps, crossed_thresholds, scored
from tamis.weakseg.images import read_mask
from tamis.weakseg.labels import folds, read_dataset
from tamis.weakseg.maps import write_map
from tamis.weakseg.metrics import FIGURES
from tamis.weakseg.phantom import phantom
from tamis.weakseg.refine import refine


@pytest.fixture
def maps(dataset: Path, tmp_path: Path) -> Path:
    """Positives: their mask at 0.8. Negatives: a ramp up to 0.1 for each of their numbers."""
    for image in read_dataset(dataset).images:
        number = int(image.name[-1])
        plane = np.linspace(0, 0.1 * number, 64 * 96).reshape(64, 96)
        if image.positive:
            plane = read_mask(image.mask) * 0.8
        write_map(plane.astype(np.float32), tmp_path / "maps" / f"{image.name}.png")
    return tmp_path / "maps"


def test_thresholds_come_from_the_negatives_of_other_folds(dataset: Path, maps: Path) -> None:
    found = read_dataset(dataset)
    chosen, overall = crossed_thresholds(found, Maps((maps,)), 4, marked=0.10)
    negatives = [image for image in found.images if not image.positive]
    for held in folds(found, 4, seed=0):
        others = [int(n.name[-1]) for n in negatives if n.name not in {found.images[i].name for i in held}]
        marked = np.mean(
            [max(0, 1 - chosen[found.images[held[0]].name] / (0.1 * number)) for number in others]
        )
        assert marked <= 0.101
        assert marked > 0.08  # the lowest such threshold
    assert 0.4 < overall < 0.7


def test_masks_do_not_move_the_thresholds(dataset: Path, maps: Path) -> None:
    found = read_dataset(dataset)
    before = crossed_thresholds(found, Maps((maps,)), 4, marked=0.1)
    for mask in (dataset / "masks").iterdir():
        mask.write_bytes(b"not to be read")
    assert crossed_thresholds(found, Maps((maps,)), 4, marked=0.1) == before


def test_perfect_maps_are_perfect_and_the_mean_of_folders_is_scored(dataset: Path, maps: Path) -> None:
    found = read_dataset(dataset)
    thresholds = dict.fromkeys((image.name for image in found.images), 0.75)
    images, baseline = scored(found, Maps((maps, maps)), thresholds)
    assert all(image.f1 == 1 for image in images)
    assert all(image.marked == 1 for image in baseline)
    with pytest.raises(InputError, match="no map of field_0"):
        Maps((maps, maps.parent)).of(found.images[0])


def test_where_no_threshold_spares_the_negatives_nothing_is_marked(dataset: Path, maps: Path) -> None:
    found = read_dataset(dataset)
    for image in found.images:
        if not image.positive:
            write_map(np.ones((64, 96), np.float32), maps / f"{image.name}.png")
    chosen, overall = crossed_thresholds(found, Maps((maps,)), 2, marked=0.0)
    assert overall == 1.0 and set(chosen.values()) == {1.0}


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--negatives", "0.1", "--folds", "1"], 2, "give 2 or more"),
        (["--negatives", "0.1", "--folds", "5"], 1, "4 images with cancer, and 5 folds"),
        (["--sheet", "."], 1, "it is a folder"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_scored(
    dataset: Path,
    maps: Path,
    options: list[str],
    status: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["weakseg", "evaluate", str(dataset), str(maps), *options]) == status
    told = capsys.readouterr()
    assert sentence in told.err and told.out == ""


def test_maps_need_masks_of_the_same_picture(dataset: Path, maps: Path) -> None:
    found = read_dataset(dataset)
    thresholds = dict.fromkeys((image.name for image in found.images), 0.5)
    write_map(np.zeros((32, 48), np.float32), maps / "field_5.png")
    scored(found, Maps((maps,)), thresholds)  # half the resolution
    write_map(np.zeros((30, 96), np.float32), maps / "field_5.png")
    with pytest.raises(InputError, match="its map is 96 x 30 px and its mask 96 x 64 px"):
        scored(found, Maps((maps,)), thresholds)
    (maps / "field_5.png").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"field_5\.png is no readable map"):
        scored(found, Maps((maps,)), thresholds)
    write_map(np.zeros((64, 96), np.float32), maps / "field_5.png")
    shutil.rmtree(dataset / "masks")
    with pytest.raises(InputError, match="no mask of an image with cancer"):
        scored(read_dataset(dataset), Maps((maps,)), thresholds)


def test_what_cannot_be_scored_is_named(
    dataset: Path, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in (1, 6):
        (dataset / "masks" / f"field_{i}.png").unlink()
    assert main(["weakseg", "evaluate", str(dataset), str(maps), "--json"]) == 0
    told = capsys.readouterr()
    assert "1 images with cancer have no mask and are not scored: field_1." in told.err
    assert json.loads(told.out)["figures"]["maps"]["pooled_f1"]["n"] == 7


def test_a_figure_that_these_images_do_not_have_is_null(
    dataset: Path, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(dataset, ["name", "label"], [[f"field_{i}", "cancer"] for i in range(4)])
    for i in range(4, 8):
        (dataset / "images" / f"field_{i}.png").unlink()
    assert main(["weakseg", "evaluate", str(dataset), str(maps), "--json"]) == 0
    printed = capsys.readouterr().out
    assert "NaN" not in printed
    figures = json.loads(printed)["figures"]["maps"]
    assert figures["f1_negatives"]["value"] is None and figures["f1_positives"]["value"] == 1.0
    assert figures["hd95_um"]["value"] is None, "pixels are no um"


def test_distances_are_those_of_images_of_known_scale(dataset: Path, maps: Path) -> None:
    write_map(np.zeros((64, 96), np.float32), maps / "field_0.png")
    found = read_dataset(dataset)
    unknown = replace(found.images[0], um_per_px=None)
    for images, expected in (
        (found.images, np.hypot(64, 96) * 2 / 4),
        ((unknown, *found.images[1:]), 0.0),
    ):
        part = replace(found, images=images)
        thresholds = dict.fromkeys((image.name for image in images), 0.5)
        scores, _ = scored(part, Maps((maps,)), thresholds)
        assert FIGURES["hd95_um"](scores) == pytest.approx(expected)


def test_a_mask_of_another_size_than_its_image_is_refused(dataset: Path, maps: Path) -> None:
    save(dataset / "masks" / "field_0.png", np.full((32, 48), 255, np.uint8))
    write_map(np.zeros((32, 48), np.float32), maps / "field_0.png")
    found = read_dataset(dataset)
    with pytest.raises(InputError, match="the mask is 48 x 32 px and its image 96 x 64 px"):
        scored(found, Maps((maps,)), dict.fromkeys((image.name for image in found.images), 0.5))


def test_refined_boundaries_move_to_the_edge_of_the_tissue() -> None:
    image = np.full((120, 160, 3), 230, np.uint8)
    image[:, 80:] = 120
    coarse = np.zeros((120, 160), np.float32)
    coarse[:, 90:] = 1  # ten pixels off
    blurred = cv2.GaussianBlur(coarse, (0, 0), 8)
    refined = refine(blurred, image)
    before, after = (np.abs(np.argmax(plane > 0.5, axis=1) - 80).mean() for plane in (blurred, refined))
    assert after < before / 2
    assert refined.min() >= 0 and refined.max() <= 1


def test_the_fast_filter_is_the_filter() -> None:
    """Fits on a quarter of the width give the map of full fits, but for a hundredth; also where sizes are no multiples."""
    image = phantom(330, 203, seed=3, um_per_px=1.24)[0]
    plane = cv2.resize(np.random.default_rng(0).random((8, 12)).astype(np.float32), (330, 203))
    fast, slow = refine(plane, image), refine(plane, image, step=1)
    assert fast.shape == slow.shape == plane.shape
    assert np.abs(slow - plane).mean() > 0.05
    assert np.abs(fast - slow).mean() < 0.01
    assert np.abs(fast - slow).max() < 0.08


def test_a_flat_image_leads_nothing_astray() -> None:
    flat = np.full((100, 100, 3), 200, np.uint8)
    plane = np.full((100, 100), 0.3, np.float32)
    np.testing.assert_allclose(refine(plane, flat), plane, atol=1e-5)

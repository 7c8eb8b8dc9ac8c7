"""Datasets and what can be wrong with them.  python -m pytest tests/weakseg/test_labels.py"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from saved import save, write_table

from tamis.errors import InputError
from tamis.weakseg.labels import check_dataset, folds, read_dataset, require_both_classes

HEADER = ["name", "label", "area"]


def rows(folder: Path, *changes: list[str]) -> None:
    """The dataset's own table with some lines in place of, or after, the first ones."""
    table = [[f"field_{i}", "cancer" if i < 4 else "no_cancer", ""] for i in range(8)]
    for index, change in enumerate(changes):
        table[index] = change
    write_table(folder, HEADER, table)


def test_reads_labels_areas_and_masks(dataset: Path) -> None:
    found = read_dataset(dataset)
    assert len(found.images) == 8
    assert found.positives == 4
    first, last = found.images[0], found.images[-1]
    assert first.positive and 0 < first.area_low == first.area_high < 1
    assert not last.positive and math.isnan(last.area_low)
    assert first.mask is not None and first.um_per_px == 2.0
    assert check_dataset(dataset)[1] == []


def test_columns_have_other_names_too(dataset: Path) -> None:
    table = [[f"field_{i}.png", f"case {i // 2}", "cancer" if i < 4 else "no_cancer", ""] for i in range(8)]
    table[0][3] = "0.4"
    write_table(dataset, ["file", "Slide", "label", "tumor_fraction"], table)
    found = read_dataset(dataset)
    assert [image.patient for image in found.images[:3]] == ["case 0", "case 0", "case 1"]
    assert found.images[0].area_low == pytest.approx(0.4)


def test_a_column_under_its_own_name_counts_before_others(dataset: Path) -> None:
    table = [[f"scan {i}", f"field_{i}", "cancer" if i < 4 else "no_cancer"] for i in range(8)]
    write_table(dataset, ["image", "name", "label"], table)
    assert [image.name for image in read_dataset(dataset).images[:2]] == ["field_0", "field_1"]


def test_one_patient_alone_cannot_be_split(dataset: Path) -> None:
    table = [[f"field_{i}", "only", "cancer" if i < 4 else "no_cancer"] for i in range(8)]
    write_table(dataset, ["name", "patient", "label"], table)
    with pytest.raises(InputError, match="leave their column empty"):
        folds(read_dataset(dataset), 2, seed=0)


def test_a_patient_who_is_missing_is_told(dataset: Path) -> None:
    """One empty cell would split all others by image."""
    table = [[f"field_{i}", "1" if i < 4 else "0", f"patient {i // 2}"] for i in range(8)]
    table[5][2] = ""
    write_table(dataset, ["name", "label", "patient"], table)
    with pytest.raises(InputError, match=r"1 of 8 images name no patient \(field_5\)"):
        read_dataset(dataset)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0.3", 0.3, 0.3),
        ("30%", 0.3, 0.3),
        ("0.2-0.5", 0.2, 0.5),
        ("20-50%", 0.2, 0.5),
        ("1", 1, 1),
        (".5", 0.5, 0.5),
    ],
)
def test_area_is_a_fraction_or_an_interval(dataset: Path, text: str, low: float, high: float) -> None:
    rows(dataset, ["field_0", "1", text])
    image = read_dataset(dataset).images[0]
    assert (image.area_low, image.area_high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["field_0", "maybe", ""], "labelled 'maybe'"),
        (["field_0", "", ""], "labelled ''"),
        (["", "cancer", ""], "name is empty"),
        (["absent", "cancer", ""], "no image absent"),
        (["field_1", "cancer", ""], "there twice"),
        (["field_0", "cancer", "1.3"], "area '1.3'"),
        (["field_0", "cancer", "half"], "area 'half'"),
        (["field_0", "cancer", "0.5-0.2"], "area '0.5-0.2'"),
        (["field_0", "cancer", "0"], "area of 0"),
        (["field_0", "benign", "0.5"], "no cancer but an area"),
    ],
)
def test_a_bad_line_is_named(dataset: Path, change: list[str], sentence: str) -> None:
    rows(dataset, change)
    with pytest.raises(InputError, match=r"labels\.csv, line \d") as caught:
        read_dataset(dataset)
    assert sentence in str(caught.value)
    assert any(sentence in fault for fault in check_dataset(dataset)[1])


def test_blank_lines_count_as_lines(dataset: Path) -> None:
    table = dataset / "labels.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], "", "", lines[2].replace("cancer", "maybe"), *lines[3:]]))
    with pytest.raises(InputError, match=r"labels\.csv, line 5: field_1 is labelled 'maybe'"):
        read_dataset(dataset)


def test_two_images_of_one_name_are_told(dataset: Path) -> None:
    """Which of them a line means, and whose the mask is, nobody can know."""
    save(dataset / "images" / "field_0.bmp", np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"field_0\.bmp and field_0\.png have one name"):
        read_dataset(dataset)


def test_a_table_with_semicolons_is_told_from_one_without_columns(dataset: Path) -> None:
    table = dataset / "labels.csv"
    table.write_text(table.read_text().replace(",", ";"))
    with pytest.raises(InputError, match="parted by ';', so save it with commas"):
        read_dataset(dataset)


def test_an_image_without_a_line_is_named(dataset: Path) -> None:
    write_table(dataset, HEADER, [["field_0", "1", ""], ["field_7", "0", ""]])
    with pytest.raises(InputError, match="6 images have no line"):
        read_dataset(dataset)


@pytest.mark.parametrize(
    "content", [None, b"", b"name,label\n", b"picture,kind\na,b\n", b"name,label\n\xff\xfe,1\n"]
)
def test_a_table_that_is_none(dataset: Path, content: bytes | None) -> None:
    table = dataset / "labels.csv"
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(InputError, match=r"labels\.csv"):
        read_dataset(dataset)


def test_a_dataset_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_dataset(tmp_path / "absent")


def test_one_class_alone_cannot_be_learned_from(dataset: Path) -> None:
    write_table(dataset, HEADER, [[f"field_{i}", "cancer", ""] for i in range(8)])
    with pytest.raises(InputError, match="all 8 images are labelled 'cancer'"):
        require_both_classes(read_dataset(dataset))
    assert any("all 8" in fault or "all 4" in fault for fault in check_dataset(dataset)[1])


def test_check_names_broken_images_and_wrong_masks_and_goes_on(dataset: Path) -> None:
    (dataset / "images" / "field_1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    save(dataset / "masks" / "field_2.png", np.zeros((10, 10), np.uint8))
    save(dataset / "masks" / "field_3.png", np.zeros((64, 96), np.uint8))
    save(dataset / "masks" / "field_4.png", np.full((64, 96), 255, np.uint8))
    found, faults = check_dataset(dataset)
    assert {image.name for image in found.images} == {"field_0", "field_5", "field_6", "field_7"}
    text = "\n".join(faults)
    for sentence in ("field_1.png is broken", "the mask is 10 x 10 px", "mask is empty", "marks 100%"):
        assert sentence in text


def test_check_names_what_some_images_lack(dataset: Path) -> None:
    (dataset / "masks" / "field_1.png").rename(dataset / "masks" / "feild_1.png")
    (dataset / "masks" / "field_2.tif").write_bytes(b"")
    (dataset / "masks" / "field_5.png").unlink()  # a negative needs none
    table = (dataset / "labels.csv").read_text()
    (dataset / "labels.csv").write_text(table.replace("field_6,no_cancer,,2.0", "field_6,no_cancer,,"))
    found, faults = check_dataset(dataset)
    text = "\n".join(faults)
    assert len(found.images) == 8 and len(faults) == 3
    assert "2 files are no image's mask (feild_1.png, field_2.tif)" in text
    assert "1 images with cancer have no mask (field_1)" in text
    assert "1 of 8 images have no um_per_px (field_6)" in text
    for path in (dataset / "masks").iterdir():
        path.unlink()
    assert len(check_dataset(dataset)[1]) == 1, "masks are needed to evaluate only"


def test_folds_part_classes_evenly_and_use_each_image_once(dataset: Path) -> None:
    found = read_dataset(dataset)
    held = folds(found, 4, seed=1)
    assert sorted(i for fold in held for i in fold) == list(range(8))
    assert all(sum(found.images[i].positive for i in fold) == 1 for fold in held)
    assert folds(found, 4, seed=1) == held


def test_folds_never_part_a_patient(dataset: Path) -> None:
    table = [[f"field_{i}", "1" if i < 4 else "0", f"patient {i % 4}"] for i in range(8)]
    write_table(dataset, ["name", "label", "patient"], table)
    found = read_dataset(dataset)
    assert found.patients_known
    # Patients with as many positives as negatives count as positive; there is no negative patient here.
    with pytest.raises(InputError, match="0 patients with no cancer"):
        folds(found, 2, seed=0)
    table = [[f"field_{i}", "1" if i < 4 else "0", f"patient {i // 2}"] for i in range(8)]
    write_table(dataset, ["name", "label", "patient"], table)
    found = read_dataset(dataset)
    for fold in folds(found, 2, seed=0):
        named = {found.images[i].patient for i in fold}
        others = {found.images[i].patient for i in range(8) if i not in fold}
        assert not named & others


def test_too_many_folds_are_refused(dataset: Path) -> None:
    with pytest.raises(InputError, match="4 images with cancer, and 5 folds"):
        folds(read_dataset(dataset), 5, seed=0)

"""What a run goes on with: what it was begun on.  python -m pytest tests/weakseg/test_beginning.py"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tamis.errors import InputError, UsageError
from tamis.weakseg.beginning import begin
from tamis.weakseg.labels import read_dataset
from tamis.weakseg.recipe import RECIPES, Recipe


@pytest.fixture
def begun(dataset: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    begin(run, Recipe(), read_dataset(dataset), folds=2, seed=0)
    (run / "fold-0").mkdir()
    return run


def test_the_same_again_goes_on(dataset: Path, begun: Path) -> None:
    begin(begun, Recipe(), read_dataset(dataset), folds=2, seed=0)


@pytest.mark.parametrize(
    ("folds", "seed", "sentence"),
    [
        (3, 0, r"begun with --folds 2, and --folds 3 was asked for: .* another folder with -o"),
        (2, 1, r"begun with --seed 0, and --seed 1 was asked for"),
    ],
)
def test_other_folds_and_seeds_are_another_run_s(
    dataset: Path, begun: Path, folds: int, seed: int, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        begin(begun, Recipe(), read_dataset(dataset), folds=folds, seed=seed)


def test_a_training_on_everything_stands_beside_folds(dataset: Path, begun: Path) -> None:
    begin(begun, Recipe(), read_dataset(dataset), folds=0, seed=0)
    with pytest.raises(UsageError, match="--folds 2, and --folds 3"):
        begin(begun, Recipe(), read_dataset(dataset), folds=3, seed=0)


def test_rows_in_another_order_are_held_out_in_other_folds(dataset: Path, begun: Path) -> None:
    table = dataset / "labels.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows[::-1]]))
    with pytest.raises(UsageError, match=r"rows, their order, labels, areas or files of .* have changed"):
        begin(begun, Recipe(), read_dataset(dataset), folds=2, seed=0)


def test_masks_may_be_drawn_after_a_training_without_them(dataset: Path, tmp_path: Path) -> None:
    weak, full = tmp_path / "weak", tmp_path / "full"
    for run, recipe in ((weak, Recipe()), (full, RECIPES["full"])):
        begin(run, recipe, read_dataset(dataset), folds=0, seed=0)
        (run / "fold-all").mkdir()
    (dataset / "masks" / "field_0.png").unlink()
    begin(weak, Recipe(), read_dataset(dataset), folds=0, seed=0)
    with pytest.raises(UsageError, match="another dataset"):
        begin(full, RECIPES["full"], read_dataset(dataset), folds=0, seed=0)


def test_a_run_from_before_there_were_notes_goes_on(dataset: Path, begun: Path) -> None:
    (begun / "begun.json").unlink()
    begin(begun, Recipe(), read_dataset(dataset), folds=3, seed=1)
    assert not (begun / "begun.json").exists(), "what it was begun on is not known"


def test_what_was_not_begun_may_become_anything(dataset: Path, tmp_path: Path) -> None:
    begin(tmp_path, Recipe(), read_dataset(dataset), folds=2, seed=0)
    begin(tmp_path, replace(Recipe(), steps=3), read_dataset(dataset), folds=3, seed=1)


def test_a_damaged_note_is_told(dataset: Path, begun: Path) -> None:
    (begun / "begun.json").write_text("[1]")
    with pytest.raises(InputError, match=r"begun\.json is damaged"):
        begin(begun, Recipe(), read_dataset(dataset), folds=2, seed=0)

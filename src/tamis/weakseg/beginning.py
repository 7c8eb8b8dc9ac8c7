"""What a run was begun on, in RUN/begun.json: it goes on with that and with nothing else.

Which images a fold holds out follows from the rows of the table, their order and the number of folds. A finished fold of
other rows would count as done, and its maps as held out, of images that it has learned from.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from tamis.errors import InputError, UsageError
from tamis.weakseg.labels import Dataset
from tamis.weakseg.recipe import Recipe, store
from tamis.writing import replacing


def begin(run: Path, recipe: Recipe, dataset: Dataset, *, folds: int, seed: int) -> None:
    """Leave the recipe and the note in RUN. Raises UsageError for a run that was begun with something else.

    `folds` is 0 for a training on everything, which may stand beside folds of one run. A run that was begun before there
    were such notes goes on without.
    """
    store(recipe, run)
    path = run / "begun.json"
    note = {"images": len(dataset.images), "dataset": digest(dataset, recipe), "folds": folds, "seed": seed}
    if any(run.glob("fold-*")):
        if not path.exists():
            return
        before = _read(path)
        if differences := _differences(before, note, dataset):
            raise UsageError(
                f"{run} {'; '.join(differences)}: ask for the same again, or give another folder with -o."
            )
        note["folds"] = folds or before.get("folds", 0)
    with replacing(path) as beside:
        beside.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def digest(dataset: Dataset, recipe: Recipe) -> str:
    """Of the table as it was understood and of the sizes of files; copies have other times, so those do not count.

    Masks count where they are learned from only: elsewhere they may be drawn once the training is over.
    """
    rows = [
        (
            image.name,
            image.positive,
            image.area_low,
            image.area_high,
            image.patient,
            image.um_per_px,
            image.path.stat().st_size,
            image.mask.stat().st_size if image.mask is not None and recipe.objective.pixels else None,
        )
        for image in dataset.images
    ]
    return sha256(repr(rows).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise InputError(
            f"{path} is damaged, which says what the run was begun on: give another folder with -o."
        ) from None


def _differences(before: dict[str, Any], now: dict[str, Any], dataset: Dataset) -> list[str]:
    found = []
    if before.get("images") != now["images"]:
        found.append(
            f"was begun on {before.get('images')} images, and {dataset.folder} has {now['images']} now"
        )
    elif before.get("dataset") != now["dataset"]:
        found.append(
            f"was begun on another dataset: rows, their order, labels, areas or files of {dataset.folder} have changed since"
        )
    if before.get("folds") and now["folds"] and before["folds"] != now["folds"]:
        found.append(f"was begun with --folds {before['folds']}, and --folds {now['folds']} was asked for")
    if before.get("seed") != now["seed"]:
        found.append(f"was begun with --seed {before.get('seed')}, and --seed {now['seed']} was asked for")
    return found

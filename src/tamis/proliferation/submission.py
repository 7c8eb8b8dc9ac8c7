"""Truth and predictions of TUPAC16's three tasks, as the challenge published them and in a friendlier form.

    scores.csv          tasks 1 and 2 in two columns, no ids, row n for slide n; a task not entered is -1 throughout
    05/01.csv           task 3, one file an image: row,col[,confidence] in pixels, no header
    with a header       columns named slide, mitotic_score, pam50_proliferation; or one table of all images with
                        image (or case and tile), row and col (or x_um and y_um), confidence; by name, in any order
    .jsonl              what `tamis proliferation detect --json` prints

A submission is one such file, or a folder that holds both parts. `read_truth` and `read_submission` refuse what the
challenge's statistics are not defined for: NaN, -1 inside an entered task, too few or too many rows, unknown ids.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.proliferation.submission_files import (
    ENDING,
    Floats,
    cell_of,
    finite,
    number,
    read_records,
    read_table,
)
from tamis.writing import replacing

CATEGORIES = (1, 2, 3)
NOT_ENTERED = -1.0
TUPAC_UM_PER_PX = 0.25
TASKS = {1: "mitotic_score", 2: "pam50_proliferation"}
JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Scores:
    """Tasks 1 and 2, one value a slide; None for a task that is not there."""

    source: Path
    ids: tuple[str, ...] | None
    """None: the file has no ids, and row n is slide n."""
    mitotic_score: Floats | None
    pam50_proliferation: Floats | None

    def __len__(self) -> int:
        column = self.mitotic_score if self.mitotic_score is not None else self.pam50_proliferation
        return 0 if column is None else len(column)


@dataclass(frozen=True, slots=True)
class Points:
    """Task 3: for every image the places of its mitoses."""

    source: Path
    images: Mapping[str, Floats]
    """Image id such as "05/01" -> [n, 3]: x_um, y_um, confidence (NaN where none is given)."""
    lists_empty_images: bool
    """Whether an image without a mitosis would be in `images`: so in a folder, not in one table of points."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What one method handed in, or the truth."""

    name: str
    scores: Scores | None = None
    points: Points | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Sentences about what was read without being an error."""


def read_truth(path: Path, um_per_px: float = TUPAC_UM_PER_PX) -> Submission:
    """The truth in a file or a folder. Raises InputError where it is not complete."""
    truth = _read(path, um_per_px)
    if truth.scores is not None:
        _check_scores(truth.scores, truth=True)
    if truth.points is not None and not truth.points.images:
        raise InputError(
            f"{truth.points.source} names no image: a row for every mitosis was expected, and of an image without one a row "
            "with empty places."
        )
    return truth


def read_submission(path: Path, truth: Submission, um_per_px: float = TUPAC_UM_PER_PX) -> Submission:
    """A submission, its rows in the truth's order. Raises InputError where it cannot be scored against the truth."""
    found = _read(path, um_per_px)
    scores, points, notes = found.scores, found.points, []
    if scores is not None and truth.scores is not None:
        _check_scores(scores)
        entered, wanted = _entered(scores), _entered(truth.scores)
        if set(entered) & set(wanted):
            scores = _aligned(scores, truth.scores)
        else:
            notes.append(
                f"{scores.source} enters task {entered[0]}, and the truth has task {wanted[0]} alone: not evaluated."
            )
            scores = None
    elif scores is not None:
        notes.append(
            f"{scores.source} enters tasks 1 and 2, for which the truth has no scores: not evaluated."
        )
        scores = None
    if points is not None and truth.points is not None:
        points, told = _same_images(points, truth.points)
        notes += told
    elif points is not None:
        notes.append(f"{points.source} enters task 3, for which the truth has no mitoses: not evaluated.")
        points = None
    if scores is None and points is None:
        raise InputError(
            f"{path} holds nothing that the truth {truth.name} can be compared with. " + " ".join(notes)
        )
    return Submission(found.name, scores, points, tuple(notes))


def find_submissions(path: Path, truth: Submission) -> list[Path]:
    """The submissions that an argument names: itself, or everything inside a folder of submissions.

    A folder is one submission if a file in it is named as an image of the truth, if it holds a single table, or a table
    beside numbered images (05/01.csv) or beside the slides that `tamis proliferation score` has written.
    """
    if not path.is_dir():
        return [path]
    images = truth.points.images if truth.points is not None else {}
    ends = {image.split("/", n)[-1] for image in images for n in range(max(1, image.count("/")))}
    if ends & {_image_id(file, path) for file in path.rglob("*.csv")}:
        return [path]
    inside = sorted(p for p in path.iterdir() if not p.name.startswith(".") and (p.is_dir() or _is_table(p)))
    below = [_image_id(p, path) for p in path.rglob("*.csv") if p.parent != path]
    parts = below and all(re.fullmatch(r"(\d+/)+\d+", image) for image in below)
    if sum(p.is_file() for p in inside) == 1 and (parts or (path / JOURNAL).exists()):
        return [path]
    if not inside:
        raise InputError(f"The folder {path} holds no submission: expected .csv files, or folders with them.")
    return inside


def write_scores(path: Path, mitotic_score: Sequence[float] | None, pam50: Sequence[float] | None) -> None:
    """Tasks 1 and 2 as the challenge asks: two columns, no ids, in the order given; None is filled with -1.

    Raises InputError for NaN or a value that the challenge does not know, and writes nothing.
    """
    columns = [None if c is None else np.asarray(c, np.float64) for c in (mitotic_score, pam50)]
    _check_scores(Scores(path, None, *columns))
    n = len(Scores(path, None, *columns))
    one, two = (np.full(n, NOT_ENTERED) if column is None else column for column in columns)
    lines = [f"{int(a)},{b:.9g}" for a, b in zip(one, two, strict=True)]
    with replacing(path) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_points(folder: Path, images: Mapping[str, Floats], um_per_px: float = TUPAC_UM_PER_PX) -> None:
    """Task 3 as the challenge asks: FOLDER/05/01.csv with row,col[,confidence] in pixels; empty where there is none."""
    for image, points in images.items():
        if np.isnan(points[:, :2]).any():
            raise InputError(f"Image {image}: a position is NaN; nothing was written for it.")
        lines = []
        for x_um, y_um, confidence in points:
            line = f"{y_um / um_per_px:.10g},{x_um / um_per_px:.10g}"
            lines.append(line if math.isnan(confidence) else f"{line},{confidence:.6g}")
        with replacing(folder / f"{image}.csv") as beside:
            beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# reading


def _read(path: Path, um_per_px: float) -> Submission:
    if path.is_dir():
        return _read_folder(path, um_per_px)
    if path.suffix.lower() in {".jsonl", ".json"}:
        return Submission(path.stem, points=Points(path, read_records(path), lists_empty_images=True))
    header, rows = read_table(path)
    if header and ("row" in header or "x_um" in header):
        return Submission(path.stem, points=_points_of_table(path, header, rows, um_per_px))
    return Submission(path.stem, scores=_scores_of_table(path, header, rows))


def _read_folder(folder: Path, um_per_px: float) -> Submission:
    tables = sorted(p for p in folder.iterdir() if _is_table(p))
    files = sorted(p for p in folder.rglob("*.csv") if p.parent != folder and not p.name.startswith("."))
    if not files and len(tables) > 1 and not any(read_table(table)[0] for table in tables):
        files, tables = tables, []  # images in one folder, without sub-folders
    if not files and not tables:
        raise InputError(
            f"The folder {folder} holds neither a table of scores (scores.csv) nor one CSV an image (05/01.csv)."
        )
    parts = [_read(table, um_per_px) for table in tables]
    scores = [part.scores for part in parts if part.scores is not None]
    points = [part.points for part in parts if part.points is not None]
    if files:
        images = {_image_id(file, folder): _points_of_file(file, um_per_px) for file in files}
        points.append(Points(folder, images, lists_empty_images=True))
    if len(scores) > 1 or len(points) > 1:
        raise InputError(
            f"The folder {folder} holds more than one table for the same task ({', '.join(t.name for t in tables)}): "
            "leave one of each, or give the files one by one."
        )
    return Submission(folder.name, scores[0] if scores else None, points[0] if points else None)


def _scores_of_table(path: Path, header: dict[str, int], rows: list[list[str]]) -> Scores:
    if not rows:
        raise InputError(f"{path} is empty: one row a slide was expected.")
    if not header:
        if wrong := next((n for n, row in enumerate(rows, 1) if len(row) != 2), None):
            raise InputError(
                f"{path}, row {wrong} has {len(rows[wrong - 1])} columns: two were expected, mitotic score and PAM50 "
                "proliferation, with -1 throughout for a task not entered."
            )
        header = {"mitotic_score": 0, "pam50_proliferation": 1}
    columns = {name: _column(path, name, header, rows) for name in TASKS.values()}
    for name, column in columns.items():
        if column is not None and (column == NOT_ENTERED).all():
            columns[name] = None
    ids = None
    if "id" in header:
        ids = tuple(cell_of(path, row, n, header["id"]) for n, row in enumerate(rows, 1))
        if doubled := sorted({i for i in ids if ids.count(i) > 1}):
            raise InputError(f"{path} names {_some(doubled)} more than once: one row a slide was expected.")
    if all(column is None for column in columns.values()):
        raise InputError(
            f"{path} enters neither task 1 nor task 2: every value is -1, or the columns are absent."
        )
    return Scores(path, ids, columns["mitotic_score"], columns["pam50_proliferation"])


def _column(path: Path, name: str, header: dict[str, int], rows: list[list[str]]) -> Floats | None:
    if name not in header:
        return None
    cells = [cell_of(path, row, n, header[name]) for n, row in enumerate(rows, 1)]
    if not any(cells):  # so `tamis proliferation score` writes a value that no model gave
        return None
    values = [number(cell) for cell in cells]
    if None in values:
        n = values.index(None)
        raise InputError(f"{path}, row {n + 1}: {cells[n]!r} is no number for {name}.")
    return np.array(values, np.float64)


def _points_of_table(path: Path, header: dict[str, int], rows: list[list[str]], um_per_px: float) -> Points:
    if "image" not in header and "case" not in header:
        raise InputError(f"{path} has no column that names the image: add image, or case and tile.")
    names = ["image"] if "image" in header else [n for n in ("case", "tile") if n in header]
    scale, axes = (1.0, ("x_um", "y_um")) if "x_um" in header else (um_per_px, ("col", "row"))
    if missing := [axis for axis in axes if axis not in header]:
        raise InputError(f"{path} has no column {missing[0]}: both {axes[0]} and {axes[1]} are needed.")
    images: dict[str, list[tuple[float, float, float]]] = {}
    named: dict[str, str] = {}
    for n, row in enumerate(rows, 1):
        image = "/".join(cell_of(path, row, n, header[name]) for name in names)
        if (first := named.setdefault(ENDING.sub("", image), image)) != image:
            raise InputError(f"{path} has both {first} and {image}: without their endings they are one name.")
        points = images.setdefault(ENDING.sub("", image), [])
        cells = [cell_of(path, row, n, header[axis]) for axis in axes]
        if any(cells):  # an image with empty places was looked at, and has no mitosis
            x, y = (finite(path, n, cell) * scale for cell in cells)
            sure = cell_of(path, row, n, header["confidence"]) if "confidence" in header else ""
            points.append((x, y, finite(path, n, sure) if sure else math.nan))
    arrays = {image: np.array(points, np.float64).reshape(-1, 3) for image, points in images.items()}
    return Points(path, arrays, lists_empty_images=False)


def _points_of_file(path: Path, um_per_px: float) -> Floats:
    """One image: row,col[,confidence] in pixels. [n, 3]: x_um, y_um, confidence."""
    header, rows = read_table(path)
    places = header or {"row": 0, "col": 1, "confidence": 2}
    if missing := {"row", "col"} - set(places):
        raise InputError(
            f"{path} has no column {' and no column '.join(sorted(missing))}: in a folder of submissions, a CSV in a "
            "sub-folder holds the mitoses of one image (row,col)."
        )
    points = []
    for n, row in enumerate(rows, 1):
        if not header and len(row) not in (2, 3):
            raise InputError(
                f"{path}, row {n} has {len(row)} columns: row,col or row,col,confidence was expected."
            )
        y, x = (finite(path, n, cell_of(path, row, n, places[axis])) for axis in ("row", "col"))
        sure = places.get("confidence", 9)
        confidence = finite(path, n, row[sure]) if len(row) > sure and row[sure] else math.nan
        points.append((x * um_per_px, y * um_per_px, confidence))
    return np.array(points, np.float64).reshape(-1, 3)


# checking


def _check_scores(scores: Scores, *, truth: bool = False) -> None:
    for task, name in TASKS.items():
        column: Floats | None = getattr(scores, name)
        if column is None:
            continue
        label = f"{scores.source}, task {task} ({name})"
        if not np.isfinite(column).all():
            raise InputError(
                f"{label}: row {_first(~np.isfinite(column))} is not a finite number. Every slide needs a value; "
                "a task that is not entered is -1 in every row."
            )
        filler = column == NOT_ENTERED
        if filler.any() and not (truth and task == 2):
            raise InputError(
                f"{label}: row {_first(filler)} is -1, which stands for a task that is not entered, but other rows "
                "have values. Give every slide a value, or -1 to all."
            )
        if task == 1 and not np.isin(column, CATEGORIES).all():
            row = _first(~np.isin(column, CATEGORIES))
            raise InputError(f"{label}: row {row} is {column[row - 1]:g}; a mitotic score is 1, 2 or 3.")


def _entered(scores: Scores) -> list[int]:
    return [task for task, name in TASKS.items() if getattr(scores, name) is not None]


def _aligned(scores: Scores, truth: Scores) -> Scores:
    """The scores in the truth's order. Where one of the two has no ids, its row n is slide n, and the number at the end of an
    id of the other says which that is."""
    n = len(truth)
    if scores.ids is None:
        if len(scores) != n:
            raise InputError(
                f"{scores.source} has {len(scores)} rows, and the truth {truth.source.name} has {n}: "
                "row n stands for slide n, so the numbers must be equal."
            )
        keys = [str(row) for row in range(1, n + 1)]
        wanted = keys if truth.ids is None else _numbers(truth.ids)
        if sorted(wanted) != sorted(keys):
            raise InputError(
                f"{scores.source} has no ids, so that its row n stands for slide n, and the slides of the truth "
                f"{truth.source.name} ({_some(truth.ids or ())}) are not numbered from 1 to {n} at the end of their names: "
                "add a column slide to the submission."
            )
    elif truth.ids is None:
        keys, wanted = _numbers(scores.ids), [str(row) for row in range(1, n + 1)]
        first: dict[str, str] = {}
        for key, name in zip(keys, scores.ids, strict=True):
            if (other := first.setdefault(key, name)) != name:
                raise InputError(
                    f"{scores.source} has {other} and {name}, which are both slide {key}: the truth {truth.source.name} has "
                    "no ids, so that the number at the end of a name says which of its rows is meant. Leave one of them."
                )
    else:
        keys, wanted = list(scores.ids), list(truth.ids)
    place = {key: row for row, key in enumerate(keys)}
    missing, unknown = [k for k in wanted if k not in place], [k for k in keys if k not in set(wanted)]
    if missing or unknown:
        told = [f"lacks {_some(missing)}"] if missing else []
        told += [f"has {_some(unknown)}, which the truth does not know"] if unknown else []
        raise InputError(
            f"{scores.source} {' and '.join(told)}: one row for each of the {len(wanted)} slides."
        )
    order = [place[key] for key in wanted]
    columns = (None if c is None else c[order] for c in (scores.mitotic_score, scores.pam50_proliferation))
    return Scores(scores.source, truth.ids or (scores.ids and tuple(wanted)), *columns)


def _numbers(ids: Iterable[str]) -> list[str]:
    """The number at the end of each, without zeros before it; an id without one as it is."""
    return [str(int(m[0])) if (m := re.search(r"\d+$", key)) else key for key in ids]


def _same_images(points: Points, truth: Points) -> tuple[Points, list[str]]:
    """The points with an entry for each of the truth's images, and what is to be told about it."""
    points = Points(points.source, _named_as(points, truth.images), points.lists_empty_images)
    missing = sorted(set(truth.images) - set(points.images))
    unknown = sorted(set(points.images) - set(truth.images))
    if missing and points.lists_empty_images:
        kind = "file" if points.source.is_dir() else "record"
        raise InputError(
            f"{points.source} has no {kind} for {_some(missing)} ({len(missing)} of {len(truth.images)} images): "
            f"where no mitosis is found, an empty {kind} says so."
        )
    if unknown and (truth.lists_empty_images or len(unknown) == len(points.images)):
        raise InputError(
            f"{points.source} has mitoses in {_some(unknown)}, which the truth {truth.source} does not know: "
            "name the images as the truth does."
        )
    images = dict(points.images) | {image: np.empty((0, 3)) for image in missing}
    note = f"{points.source} has mitoses in {_some(unknown)}, where the truth's table lists none: they count as false."
    return Points(points.source, images, points.lists_empty_images), [note] if unknown else []


def _named_as(points: Points, truth: Mapping[str, Floats]) -> dict[str, Floats]:
    """The images under the truth's names: `detect` prints whole paths, of which an id such as 05/01 is the end."""
    names: dict[str, str] = {}
    for name in points.images:
        ends = [t for t in truth if name.endswith(f"/{t}") or t.endswith(f"/{name}")]
        known = ends[0] if name not in truth and len(ends) == 1 else name
        if known in names:
            raise InputError(
                f"{points.source} has {names[known]} and {name}, which are both {known} of the truth: leave one of them."
            )
        names[known] = name
    return {known: points.images[name] for known, name in names.items()}


def _image_id(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _is_table(path: Path) -> bool:
    if path.name == JOURNAL or path.name.startswith("."):
        return False
    return path.suffix.lower() in {".csv", ".jsonl"} and path.is_file()


def _first(mask: NDArray[np.bool_]) -> int:
    """The row, from 1 on, of the first True."""
    return int(np.argmax(mask)) + 1


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

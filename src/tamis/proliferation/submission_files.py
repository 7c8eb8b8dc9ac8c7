"""What the files of a submission hold, before anybody asks whether it fits the truth: rows under known names, and records.

A fault in a file is told here, in a sentence with the row.
"""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError

Floats = NDArray[np.float64]
MOST = 1e9  # px or um. A slide is some 1e5 wide; of 1e300 not even a distance can be computed.
# What `scoring` takes as a slide. Not every end after a dot: DICOM series are named by UIDs such as 1.2.840.7.
ENDING = re.compile(r"\.(csv|svs|svslide|tiff?|ndpi|mrxs|scn|bif|vms|vmu|dcm|png|jpe?g)$", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"^([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)$")
# Names that people give the columns, lower case.
COLUMNS = {
    "id": ("slide", "id", "name", "case_id", "image_id"),
    "mitotic_score": ("mitotic_score", "task1", "t1", "score"),
    "pam50_proliferation": (
        "pam50_proliferation",
        "pam50",
        "proliferation",
        "proliferation_score",
        "task2",
        "t2",
    ),
    "image": ("image", "file", "filename"),
    "case": ("case",),
    "tile": ("tile", "frame"),
    "row": ("row", "row_y", "y", "y_px"),
    "col": ("col", "col_x", "column", "x", "x_px"),
    "x_um": ("x_um",),
    "y_um": ("y_um",),
    "confidence": ("confidence", "probability", "p"),
}


def read_table(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Column name -> place (empty without a header), and the rows."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file: a CSV in UTF-8 was expected.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    delimiter = _delimiter(text)
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(text.splitlines(), delimiter=delimiter)
            if any(cell.strip() for cell in row)
        ]
        if delimiter == ";":  # as spreadsheets write where the comma is the decimal point
            rows = [[DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in row] for row in rows]
    except csv.Error as error:
        raise InputError(f"{path} is not a table: {error}.") from None
    if not rows or all(number(cell) is not None for cell in rows[0]):
        return {}, rows
    names = [cell.lower() for cell in rows[0]]
    header = {
        column: names.index(alias)
        for column, aliases in COLUMNS.items()
        for alias in reversed(aliases)
        if alias in names
    }
    if not header:
        raise InputError(
            f"{path}: the first line, {','.join(rows[0])!r}, holds neither numbers nor a known column name "
            f"(mitotic_score, pam50_proliferation; image, row, col)."
        )
    return header, rows[1:]


def _delimiter(text: str) -> str:
    """By the first line that holds something, for commas may be decimal points: in 1;0,5 they are, in a,b;c they are not."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    numbers = all(
        number(cell) is not None or DECIMAL_COMMA.fullmatch(cell) for cell in map(str.strip, first.split(";"))
    )
    return ";" if ";" in first and ("," not in first or numbers) else ","


def read_records(path: Path) -> dict[str, Floats]:
    """Image id -> [n, 3]: x_um, y_um, confidence (NaN where none is given).

    Of lines of {"image":, "mitoses": [{"x_um":, "y_um":, "probability":}]}, or one JSON list of them, or a single one.
    What failed ({"image":, "error":}) is not there, so that it is told as a missing image, and not counted as an empty one.
    """
    images: dict[str, Floats] = {}
    try:
        for record in _records(path.read_text(encoding="utf-8-sig")):
            if "error" in record and "mitoses" not in record:
                continue
            points = [(m["x_um"], m["y_um"], m.get("probability", math.nan)) for m in record["mitoses"]]
            name = ENDING.sub("", record["image"])
            if name in images:
                raise InputError(f"{path} names {name} more than once: one record an image was expected.")
            images[name] = np.array(points, np.float64).reshape(-1, 3)
            if not np.isfinite(images[name][:, :2]).all():
                raise InputError(f"{path}: {name} has a mitosis whose place is no finite number.")
            if (far := np.abs(images[name][:, :2])).max(initial=0) > MOST:
                raise InputError(
                    f"{path}: {name} has a mitosis at {far.max():g} um, which lies on no slide; at most {MOST:.0e} was expected."
                )
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not what `tamis proliferation detect --json` prints ({type(error).__name__}: {error})."
        ) from None
    return images


def _records(text: str) -> list[Any]:
    """One list, one record over however many lines, or a record a line."""
    try:
        whole = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return whole if isinstance(whole, list) else [whole]


def cell_of(path: Path, row: list[str], n: int, place: int) -> str:
    if place >= len(row):
        raise InputError(f"{path}, row {n} has {len(row)} columns, and column {place + 1} was expected.")
    return row[place]


def finite(path: Path, n: int, cell: str) -> float:
    value = number(cell)
    if value is None or not math.isfinite(value):
        raise InputError(f"{path}, row {n}: {cell!r} is not a finite number.")
    if abs(value) > MOST:
        raise InputError(
            f"{path}, row {n}: {cell} lies on no slide; a place of at most {MOST:.0e} was expected."
        )
    return value


def number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None

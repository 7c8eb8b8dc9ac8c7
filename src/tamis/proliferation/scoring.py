"""Slides in, folders of results out: the work of one slide in a batch, and the table over all of them.

    DIR/STEM/   score.json  mitoses.geojson  density.ome.tiff  density.png  report.html  [score.sr.dcm  mitoses.ann.dcm]
    DIR/        results.csv  results.parquet  journal.jsonl

A slide's files are written in a folder beside and renamed when all of them are there, score.json last: where it is, the
slide is done.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tamis import __version__, batch
from tamis.batch import Item, Outcome, Told, expand, run
from tamis.errors import InputError
from tamis.remote import expand_url, is_url, local, name_of
from tamis.writing import output_error, replacing, scratch

ENDINGS = frozenset(
    f".{ending}"
    for ending in "svs tif tiff ndpi mrxs scn svslide bif vms vmu dcm png jpg jpeg".split()  # noqa: SIM905
)
RECORD = "score.json"
COLUMNS = (
    "slide", "mitotic_score", "mitotic_score_low", "mitotic_score_high", "pam50_proliferation",
    "pam50_proliferation_low", "pam50_proliferation_high", "count", "count_low", "count_high", "area_mm2",
    "mitoses_per_mm2", "mitoses_per_mm2_low", "mitoses_per_mm2_high", "mitoses_per_2mm2", "mitoses", "tissue_mm2",
    "searched_mm2", "hot_spot_x_um", "hot_spot_y_um", "um_per_px", "reader", "input_sha256", "settings",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for all slides of a batch; plain values, so that it travels to other processes and machines."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Of `score.Settings`."""
    mpp: float | None = None
    """um per pixel, instead of what the files say."""
    marks: Path | None = None
    """A table of positions to count instead of what the detector finds, as `evaluate` takes it."""
    dicom: bool = False

    def plain(self) -> dict[str, Any]:
        """As JSON values, for the record: by this a resumed batch tells whether a slide was scored in the same way."""
        settings = {name: str(v) if isinstance(v, Path) else v for name, v in self.settings.items()}
        marks = None if self.marks is None else str(self.marks)
        return {"settings": settings, "mpp": self.mpp, "marks": marks, "dicom": self.dicom}


def same_job(item: Item, job: Job) -> bool:
    """Whether the slide's record, if there is one, was made with these settings by this version."""
    try:
        provenance = json.loads(item.output.read_text(encoding="utf-8"))["provenance"]
    except (OSError, ValueError, KeyError):
        return True  # nothing there: the journal decides
    return (provenance.get("job"), provenance.get("tamis")) == (job.plain(), __version__)


def inputs(arguments: Sequence[str]) -> list[str]:
    """The slides that the arguments name, files before patterns; a folder of DICOM files is one slide."""
    found: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if is_url(argument):
            found += expand_url(argument, ENDINGS)
        elif path.is_dir() and _is_series(path):
            found.append(argument)
        elif path.is_dir():
            series = [p for p in sorted(path.iterdir()) if p.is_dir() and _is_series(p)]
            files = [p for p in path.iterdir() if not p.is_dir() and p.suffix.lower() in ENDINGS]
            if files or not series:
                found += [str(p) for p in expand([argument], ENDINGS)]
            found += [str(p) for p in series]
        else:
            found += [str(p) for p in expand([argument], ENDINGS)]
    return list(dict.fromkeys(found))


def _is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files and no other slide."""
    endings = {path.suffix.lower() for path in folder.iterdir() if path.is_file()}
    return endings & ENDINGS == {".dcm"}


def plan(slides: Sequence[str], folder: Path) -> list[Item]:
    """DIR/STEM/score.json for each. Raises UsageError when two slides would write the same folder."""
    return batch.plan(slides, folder, f"/{RECORD}")


def score_all(
    items: Sequence[Item],
    job: Job,
    folder: Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    resume: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    progress: Told = lambda share: None,
) -> list[Outcome]:
    """Score the slides as `tamis.batch.run` does. What was scored with other settings is scored again, also with `resume`."""
    same = [item for item in items if same_job(item, job)]
    outcomes: list[Outcome] = []
    for some, again in ((same, resume), ([item for item in items if item not in same], False)):
        share_before, share_of_some = len(outcomes) / len(items), len(some) / len(items)
        outcomes += run(
            some,
            partial(work, job=job),
            journal=folder / "journal.jsonl",
            jobs=jobs,
            cluster=cluster,
            resume=again,
            on_outcome=on_outcome,
            progress=partial(_within, progress, share_before, share_of_some),
        )
    return outcomes


def _within(progress: Told, before: float, whole: float, share: float) -> None:
    """A part's share told as a share of everything."""
    progress(before + whole * share)


def work(item: Item, told: Told = lambda share: None, *, job: Job) -> dict[str, Any]:
    """One slide, in a worker. Returns what the journal says about it."""
    logging.getLogger("tifffile").setLevel(
        logging.CRITICAL
    )  # what is wrong with a file is said in our sentence
    with local(item.source) as path:
        return _score(path, item, told, job)


def _score(path: Path, item: Item, told: Told, job: Job) -> dict[str, Any]:
    from tamis.proliferation import outputs, report
    from tamis.proliferation.score import Settings, score
    from tamis.slides import open_slide

    settings = Settings(**job.settings)
    name = name_of(item.url) if item.url else path.name
    with open_slide(path, mpp=job.mpp) as slide:
        marked = None if job.marks is None else _marked(job.marks, path.stem, slide.um_per_px)
        found = score(slide, settings, marked, progress=told)
        record = outputs.record(slide, found, settings, name)
        record["provenance"]["job"] = job.plain()
        density, um_per_px = outputs.density(found.mitoses, slide.size_um)
        with _folder(item.output.parent) as beside:
            outputs.write_geojson(beside / "mitoses.geojson", found, slide.um_per_px)
            outputs.write_density(beside / "density.ome.tiff", density, um_per_px)
            outputs.write_density_picture(beside / "density.png", density)
            page = report.page(slide, found, record, density)
            (beside / "report.html").write_text(page, encoding="utf-8")
            if job.dicom:
                from tamis.proliferation import dicom

                dicom.write(beside, slide, found, record)
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
            (beside / RECORD).write_text(text + "\n", encoding="utf-8")
    return {
        "mitotic_score": record["mitotic_score"],
        "count": record["count"],
        "mitoses_per_mm2": record["mitoses_per_mm2"],
        "tissue_mm2": record["tissue_mm2"],
        "seconds": round(sum(found.seconds.values()), 3),
    }


@contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` whose files move into it when the block has ended well, the record last."""
    try:
        with scratch(target) as beside:
            yield beside
            target.mkdir(parents=True, exist_ok=True)
            (target / RECORD).unlink(missing_ok=True)  # of an earlier run: never an old record over new files
            for path in sorted(beside.iterdir(), key=lambda p: p.name == RECORD):
                path.replace(target / path.name)
    except OSError as error:
        raise output_error(target, error) from error


def _marked(table: Path, stem: str, um_per_px: float) -> list[Any]:
    """The positions that a table gives for this slide. Raises InputError when it does not name it."""
    from tamis.proliferation.mitosis import Mitosis
    from tamis.proliferation.submission import read_truth

    points = read_truth(table, um_per_px).points
    if points is None or stem not in points.images:
        raise InputError(
            f"{table} does not name the image {stem}: a table with image, row, col (or x_um, y_um) was expected; an "
            "image without a mitosis is a row with empty positions."
        )
    return [Mitosis(x, y, 1.0 if p != p else p) for x, y, p in points.images[stem].tolist()]


# the table over all slides


def write_table(folder: Path, failed: Iterable[Item] = ()) -> list[dict[str, Any]]:
    """results.csv and results.parquet over every slide that has a record in `folder`, of this batch or an earlier one.

    failed  left out: what an earlier batch said of them is overtaken

    Returns the rows, in the order of the slides' folders.
    """
    left_out = {item.output for item in failed}
    found = (_record_row(path) for path in sorted(folder.glob(f"*/{RECORD}")) if path not in left_out)
    rows = [row for row in found if row is not None]
    with replacing(folder / "results.csv") as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    import pyarrow
    from pyarrow import parquet

    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    with replacing(folder / "results.parquet") as beside:
        parquet.write_table(pyarrow.table(columns), beside)
    return rows


def _record_row(path: Path) -> dict[str, Any] | None:
    """None for a file that no version of this program wrote."""
    try:
        return _row(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A line of the table. The mitotic score is the preset's; a model's own stands in score.json."""
    pam50 = record["predicted"].get("pam50_proliferation", {})
    spot, provenance = record["hot_spot"] or {}, record["provenance"]
    extra = {
        "slide": Path(record["slide"]).stem,
        "pam50_proliferation": pam50.get("value"),
        "pam50_proliferation_low": pam50.get("low"),
        "pam50_proliferation_high": pam50.get("high"),
        "hot_spot_x_um": spot.get("x_um"),
        "hot_spot_y_um": spot.get("y_um"),
        "um_per_px": provenance["um_per_px"],
        "reader": provenance["reader"],
        "input_sha256": provenance["input_sha256"],
        "settings": _settings(provenance),
    }
    return {name: extra.get(name, record.get(name)) for name in COLUMNS}


def _settings(provenance: dict[str, Any]) -> str:
    """What is not as by default, and the version: rows that differ here are not to be compared."""
    job = provenance.get("job", {})
    given = {name: job.get(name) for name in ("mpp", "marks")} | job.get("settings", {})
    return " ".join(
        [provenance["tamis"], *(f"{name}={value}" for name, value in given.items() if value is not None)]
    )


def submission(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Tasks 1 and 2 as TUPAC16 asked for them: row n is the slide whose name ends in n.

    Raises InputError where a name has no number, two have the same, or one is missing.
    """
    from tamis.proliferation.submission import write_scores

    numbered: dict[int, dict[str, Any]] = {}
    for row in rows:
        number = re.search(r"\d+$", row["slide"])
        if number is None or int(number[0]) in numbered:
            fault = "no number at its end" if number is None else "the number of another"
            raise InputError(
                f"{row['slide']} has {fault}: names such as TUPAC-TE-001 give a submission's rows."
            )
        numbered[int(number[0])] = row
    if missing := sorted(set(range(1, max(numbered, default=1) + 1)) - set(numbered)):
        raise InputError(
            f"Slide {missing[0]} has no score: a submission has a row for every slide, in their order."
        )
    in_order = [numbered[n] for n in sorted(numbered)]
    pam50 = [row["pam50_proliferation"] for row in in_order]
    write_scores(path, [row["mitotic_score"] for row in in_order], None if None in pam50 else pam50)

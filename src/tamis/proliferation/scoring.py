"""Slides in, folders of results out: the work of one slide in a batch, and the table over all of them.

    DIR/STEM/   score.json  mitoses.geojson  density.ome.tiff  density.png  report.html  [score.sr.dcm  mitoses.ann.dcm]
    DIR/        results.csv  results.parquet  journal.jsonl

A slide's files are written in a folder beside and renamed when all of them are there, score.json last: where it is, the
slide is done.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tamis import __version__, batch
from tamis.batch import Item, Outcome, Told, expand, run
from tamis.dicom_series import series_uid
from tamis.errors import InputError, UsageError
from tamis.remote import expand_url, is_url, local, name_of, stem_of
from tamis.weights import sha256_of
from tamis.writing import output_error, readable, replacing, scratch

if TYPE_CHECKING:
    from tamis.slides import Slide

ENDINGS = frozenset(
    f".{ending}"
    for ending in "svs tif tiff ndpi mrxs scn svslide bif vms vmu dcm png jpg jpeg".split()  # noqa: SIM905
)
OF_SEVERAL_FILES = (".mrxs", ".vms", ".vmu", ".dcm")
RECORD, JOURNAL = "score.json", "journal.jsonl"
SOMETIMES = ("score.sr.dcm", "mitoses.ann.dcm")
COLUMNS = (
    "slide", "mitotic_score", "mitotic_score_low", "mitotic_score_high", "pam50_proliferation",
    "pam50_proliferation_low", "pam50_proliferation_high", "count", "count_low", "count_high", "area_mm2",
    "mitoses_per_mm2", "mitoses_per_mm2_low", "mitoses_per_mm2_high", "mitoses_per_2mm2", "mitoses", "tissue_mm2",
    "searched_mm2", "hot_spot_x_um", "hot_spot_y_um", "um_per_px", "reader", "input_sha256", "settings",
)  # fmt: skip
WHOLE = ("mitotic_score", "mitotic_score_low", "mitotic_score_high", "count", "mitoses")
TEXT = ("slide", "reader", "input_sha256", "settings")


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
    sha256: dict[str, str] = field(default_factory=dict)
    """Of what is read beside the slides, by name; see `hashed`."""

    def plain(self) -> dict[str, Any]:
        """As JSON values, for the record: by this a resumed batch tells whether a slide was scored in the same way."""
        settings = {name: readable(v) if isinstance(v, Path) else v for name, v in self.settings.items()}
        marks = None if self.marks is None else readable(self.marks)
        return {
            "settings": settings, "mpp": self.mpp, "marks": marks, "dicom": self.dicom, "sha256": self.sha256
        }  # fmt: skip


def hashed(job: Job) -> Job:
    """The same with the hashes of its table of marks, or its detector, and its model: other content is another job."""
    from tamis.proliferation import detect
    from tamis.proliferation.score import PUBLISHED_MODEL

    read = {"model": job.settings.get("model") or PUBLISHED_MODEL}
    if job.marks is not None:
        read["marks"] = job.marks
    else:
        folder = job.settings.get("detector") or detect.FOLDER
        read |= {name: folder / f"{name}.json" for name in (detect.NETWORK, detect.CANDIDATES)}
    return replace(job, sha256={name: _sha256(path) for name, path in read.items() if path.exists()})


def _sha256(path: Path) -> str:
    """Of a file, or of everything in a folder; of weights their record's, which holds theirs."""
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(os.fsencode(file.relative_to(path)) + sha256_of(file).encode())
    return digest.hexdigest()


def inputs(arguments: Sequence[str]) -> list[str]:
    """The slides that the arguments name, files before patterns; a folder of DICOM files is one slide, and so are several
    files of one DICOM series.

    Raises UsageError for the URL of a slide that is more than one file.
    """
    found: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if is_url(argument):
            urls = expand_url(argument, ENDINGS)
            if parts := [
                url for url in urls if PurePosixPath(name_of(url)).suffix.lower() in OF_SEVERAL_FILES
            ]:
                raise UsageError(
                    f"{parts[0]} is one file of a slide that has several, and URLs are fetched one by one: copy the whole "
                    "slide to a folder, and name that."
                )
            found += urls
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
    return _one_of_each_series(list(dict.fromkeys(found)))


def _one_of_each_series(slides: list[str]) -> list[str]:
    """Without all but the first of several files of one DICOM series in one folder: each of them opens the whole series."""
    beside: dict[Path, list[str]] = {}
    for slide in slides:
        if slide.lower().endswith(".dcm") and not is_url(slide) and Path(slide).is_file():
            beside.setdefault(Path(slide).parent, []).append(slide)
    first: dict[tuple[Path, str], str] = {}
    again: set[str] = set()
    for folder, files in beside.items():
        for file in files if len(files) > 1 else ():
            series = series_uid(Path(file))
            if series and first.setdefault((folder, series), file) != file:
                again.add(file)
    return [slide for slide in slides if slide not in again]


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
    job = hashed(job)
    return run(
        items,
        partial(work, job=job),
        journal=folder / JOURNAL,
        jobs=jobs,
        cluster=cluster,
        resume=resume,
        settings=job.plain() | {"tamis": __version__},
        on_outcome=on_outcome,
        progress=progress,
    )


def work(item: Item, told: Told = lambda share: None, *, job: Job) -> dict[str, Any]:
    """One slide, in a worker. Returns what the journal says about it."""
    logging.getLogger("tifffile").setLevel(
        logging.CRITICAL
    )  # what is wrong with a file is said in our sentence
    with local(item.source) as path:
        return _score(path, item, told, job)


def _score(path: Path, item: Item, told: Told, job: Job) -> dict[str, Any]:
    from tamis.proliferation import dicom, outputs, report
    from tamis.proliferation.score import Settings, score
    from tamis.slides import open_slide

    settings = Settings(**job.settings)
    name = readable(name_of(item.url) if item.url else path.name)
    with open_slide(path, mpp=job.mpp) as slide:
        marked = None if job.marks is None else _marked(job.marks, readable(stem_of(item.source)), slide)
        found = score(slide, settings, marked, progress=told)
        record = outputs.record(slide, found, settings, name)
        record["provenance"]["job"] = job.plain()
        density, um_per_px = outputs.density(found.mitoses, slide.size_um)
        # All that reads the slide goes before the folder, in which every OSError is taken for a failure to write.
        page = report.page(slide, found, record, density)
        image = dicom.source_image(slide, record) if job.dicom else None
        with _folder(item.output.parent) as beside:
            outputs.write_geojson(beside / "mitoses.geojson", found, slide)
            outputs.write_density(beside / "density.ome.tiff", density, um_per_px)
            outputs.write_density_picture(beside / "density.png", density)
            (beside / "report.html").write_text(page, encoding="utf-8")
            if job.dicom:
                dicom.write(beside, image, slide.um_per_px, found, record)
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
            # Of an earlier run: never an old record over new files, nor beside them what is not written every time.
            for name in (RECORD, *SOMETIMES):
                (target / name).unlink(missing_ok=True)
            for path in sorted(beside.iterdir(), key=lambda p: p.name == RECORD):
                path.replace(target / path.name)
    except OSError as error:
        raise output_error(target, error) from error


def _marked(table: Path, stem: str, slide: Slide) -> list[Any]:
    """The positions that a table gives for this slide. Raises InputError when it does not name it, or points beside it."""
    from tamis.proliferation.mitosis import Mitosis
    from tamis.proliferation.submission import read_truth

    points = read_truth(table, slide.um_per_px).points
    if points is None or stem not in points.images:
        raise InputError(
            f"{table} does not name the image {stem}: a table with image, row, col (or x_um, y_um) was expected; an "
            "image without a mitosis is a row with empty positions."
        )
    marked = [Mitosis(*place) for place in points.images[stem].tolist()]
    (width, height), slack = slide.size_um, slide.um_per_px  # a click on the rim may be a pixel off
    for m in marked:
        if not (-slack <= m.x_um <= width + slack and -slack <= m.y_um <= height + slack):
            raise InputError(
                f"{table} puts a mitosis of {stem} at ({m.x_um:g}, {m.y_um:g}) um, outside the slide, which is {width:g} x "
                f"{height:g} um: are its columns in the other unit, or of another slide?"
            )
        if not (math.isnan(m.probability) or 0 <= m.probability <= 1):
            raise InputError(
                f"{table} gives a mitosis of {stem} the confidence {m.probability:g}: a probability from 0 to 1 was expected, or "
                "none."
            )
    return marked


# the table over all slides


def records(folder: Path) -> list[Path]:
    """The record of every slide in `folder`, of whatever batch; not where the last attempt failed: it is overtaken."""
    failed = _last_failed(folder / JOURNAL)
    found = sorted(folder.glob(f"*/{RECORD}"))
    # A killed run leaves its hidden folder of unfinished files, and a record may be among them.
    return [p for p in found if not p.parent.name.startswith(".") and p.parent.name not in failed]


def _last_failed(journal: Path) -> set[str]:
    """The slides' folders of which the journal's last line tells a failure."""
    status: dict[str, str] = {}
    try:
        lines = journal.read_bytes().splitlines()
    except FileNotFoundError:
        return set()
    for line in lines:
        try:
            noted = json.loads(line.decode("utf-8", "surrogateescape"))
            status[Path(noted["output"]).parent.name] = noted["status"]
        except (ValueError, LookupError, TypeError):
            continue  # torn by a kill
    return {name for name, said in status.items() if said == "failed"}


def write_table(folder: Path) -> list[dict[str, Any]]:
    """results.csv and results.parquet over the `records` of `folder`. Returns the rows, in the order of the slides' folders."""
    found = (_record_row(path) for path in records(folder))
    rows = [row for row in found if row is not None]
    with replacing(folder / "results.csv") as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    import pyarrow
    from pyarrow import parquet

    # Said, and not told from the values: a column without any would be of no type, and tables of batches not go together.
    kinds = {name: pyarrow.int64() for name in WHOLE} | {name: pyarrow.string() for name in TEXT}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in COLUMNS])
    with replacing(folder / "results.parquet") as beside:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), beside)
    return rows


def _record_row(path: Path) -> dict[str, Any] | None:
    """None for a file that no version of this program wrote."""
    try:
        row = _row(json.loads(path.read_text(encoding="utf-8")))
        # Not what the record calls it: of a DICOM series named by its UID, the last number is no ending.
        return row | {"slide": readable(path.parent.name)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A line of the table. The mitotic score is the preset's; a model's own stands in score.json."""
    pam50 = record["predicted"].get("pam50_proliferation", {})
    spot, provenance = record["hot_spot"] or {}, record["provenance"]
    extra = {
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


def submission(rows: Sequence[dict[str, Any]], path: Path, failed: Sequence[Item] = ()) -> list[str]:
    """Tasks 1 and 2 as TUPAC16 asked for them: row n is the slide whose name ends in n. Returns what is to be told.

    Raises InputError where a slide failed, a name has no number from 1 on, two have the same, or one is missing.
    """
    from tamis.proliferation.submission import write_scores

    if failed:
        raise InputError(
            f"{path} was not written: {failed[0].source} could not be scored, and a submission has a row for every slide."
        )
    numbered: dict[int, dict[str, Any]] = {}
    for row in rows:
        number = re.search(r"\d+$", row["slide"])
        if number is None or int(number[0]) in numbered:
            fault = "no number at its end" if number is None else "the number of another"
            raise InputError(
                f"{row['slide']} has {fault}: names such as TUPAC-TE-001 give a submission's rows."
            )
        numbered[int(number[0])] = row
    if 0 in numbered:
        raise InputError(
            f"{numbered[0]['slide']} has the number 0: the rows of a submission begin with slide 1."
        )
    if missing := sorted(set(range(1, max(numbered, default=1) + 1)) - set(numbered)):
        raise InputError(
            f"Slide {missing[0]} has no score: a submission has a row for every slide, in their order."
        )
    in_order = [numbered[n] for n in sorted(numbered)]
    pam50 = [row["pam50_proliferation"] for row in in_order]
    write_scores(path, [row["mitotic_score"] for row in in_order], None if None in pam50 else pam50)
    lacking = [row["slide"] for row in in_order if row["pam50_proliferation"] is None]
    if 0 < len(lacking) < len(in_order):
        return [
            f"{path}: task 2 is not entered, as {lacking[0]} has no PAM50 value: a submission has them all or none."
        ]
    return []

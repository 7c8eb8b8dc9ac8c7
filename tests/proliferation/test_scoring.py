"""python -m pytest tests/proliferation/test_scoring.py

On the bundled phantom, whose mitoses are given as a pathologist's clicks would be: so nothing here depends on a network.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tamis.batch import attempt
from tamis.cli import main
from tamis.errors import InputError
from tamis.proliferation.detect import CANDIDATES, NETWORK
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.score import Settings, score
from tamis.proliferation.scoring import Job, hashed, inputs, plan, records, score_all, work, write_table
from tamis.slides import open_slide

SAMPLES = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples"
PHANTOM, MARKS = SAMPLES / "phantom.tif", SAMPLES / "phantom.csv"
PLACES = [tuple(map(float, row[1:])) for row in list(csv.reader(MARKS.read_text().splitlines()))[1:]]


def run(*arguments: str | Path) -> int:
    return main(["proliferation", "score", *map(str, arguments)])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    assert run(PHANTOM, "-o", folder, "--mitoses", MARKS, "--dicom") == 0
    return folder


# one slide


def test_the_record_says_what_was_found_and_how(results: Path) -> None:
    record = json.loads((results / "phantom" / "score.json").read_text())
    assert record["count"] == record["mitoses"] == len(PLACES) == 9
    assert record["mitotic_score"] == 2
    assert (record["mitotic_score_low"], record["mitotic_score_high"]) == (1, 3)
    assert record["count_low"] == pytest.approx(4.115, abs=0.001)
    assert record["area_mm2"] == pytest.approx(record["tissue_mm2"])  # less than 2 mm2 in all
    assert record["mitoses_per_mm2"] == pytest.approx(9 / record["area_mm2"], rel=0.001)
    of_the_search = ("whole_tissue_searched", "searched_mm2", "not_searched_mm2", "mitoses_per_searched_mm2")
    assert {record[name] for name in (*of_the_search, "hot_spot_if_even")} == {None}, "nobody knows"
    assert len(record["features"]) == 21
    provenance = record["provenance"]
    assert provenance["input_sha256"] == hashlib.sha256(PHANTOM.read_bytes()).hexdigest()
    assert "tifffile" in provenance["reader"]
    assert provenance["detector"]["name"] == "given positions"
    assert "research use only" in record["purpose"]


def test_the_report_is_one_file_with_a_picture_of_every_mitosis(results: Path) -> None:
    page = (results / "phantom" / "report.html").read_text()
    assert not re.search(r'(src|href)=["\'](?!data:)', page)
    assert page.count("alt='Cell at") == page.count("<figcaption>marked</figcaption>") == 9
    assert "9 of 9 mitoses" in page and "likeliest" not in page
    assert "research use only" in page
    assert "The slide holds less tissue than the 2.00 mm²" in page
    assert "Positions were given; what was looked at to find them is not known" in page
    assert "searched" not in page and "the detector misses" not in page and "chance" not in page
    assert "by 95 % of the errors in cross-validation" in page
    assert "fitted to pathologists' mitotic scores" in page and "none of the detector's" in page


def test_what_a_name_holds_cannot_become_html(tmp_path: Path) -> None:
    odd = tmp_path / "<b>phantom & co.tif"
    shutil.copy(PHANTOM, odd)
    marks = tmp_path / "marks.csv"
    marks.write_text('image,x_um,y_um\n"<b>phantom & co",,\n')
    (item,) = plan([str(odd)], tmp_path / "out")
    work(item, job=Job(marks=marks))
    page = (tmp_path / "out" / odd.stem / "report.html").read_text()
    assert "&lt;b&gt;phantom &amp; co" in page and "<b>phantom" not in page
    assert "No mitosis was found" in page
    record = json.loads((tmp_path / "out" / odd.stem / "score.json").read_text())
    assert (record["count"], record["mitotic_score"], record["hot_spot"]) == (0, 1, None)


@pytest.mark.parametrize("reads", ["report.page", "dicom.source_image"])
def test_a_slide_that_cannot_be_read_any_more_is_no_failure_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    def gone(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "phantom.tif")

    monkeypatch.setattr(f"tamis.proliferation.{reads}", gone)
    (item,) = plan([str(PHANTOM)], tmp_path)
    _, error, _ = attempt(partial(work, job=Job(marks=MARKS, dicom=True)), item)
    assert "Input/output error: 'phantom.tif'" in error and "was not written" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_circle_is_a_circle(tmp_path: Path) -> None:
    with open_slide(PHANTOM) as slide:
        marks = [Mitosis(x, y, 1.0) for x, y in PLACES]
        found = score(slide, Settings(preset="nottingham:0.5", shape="circle"), marks)
    assert found.hot_spot is not None and found.hot_spot.shape == "circle"
    assert found.hot_spot.area_mm2 == pytest.approx(1.9635, abs=0.001)
    assert (found.count, found.mitotic_score) == (9, 2)


def test_the_package_names_what_it_exports() -> None:
    import tamis.proliferation as package

    assert [getattr(package, name).__name__ for name in package.__all__] == package.__all__
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018


def test_a_threshold_counts_fewer(tmp_path: Path) -> None:
    with open_slide(PHANTOM) as slide:
        marks = [Mitosis(x, y, n / 10) for n, (x, y) in enumerate(PLACES)]
        assert score(slide, Settings(threshold=0.5), marks).count == 4
        marks[0] = Mitosis(*PLACES[0], float("nan"))
        assert score(slide, Settings(threshold=0.5), marks).count == 5, "what states no probability stays"


# many slides


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Two phantoms, a broken file and a text in a folder, and positions for both."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("one", "two"):
        shutil.copy(PHANTOM, folder / f"{name}.tif")
    (folder / "broken.svs").write_bytes(b"II*\0 not a slide")
    (folder / "notes.txt").write_text("not a slide")
    lines = ["image,x_um,y_um", *(f"{n},{x},{y}" for n in ("one", "two") for x, y in PLACES)]
    (tmp_path / "marks.csv").write_text("\n".join(lines))
    return tmp_path


def test_a_failed_slide_is_one_line_and_the_others_are_done(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = several / "out"
    command = (several / "slides", "-o", out, "--mitoses", several / "marks.csv")
    assert run(*command, "--jobs", "2") == 1
    error = capsys.readouterr().err
    assert len([line for line in error.splitlines() if "broken.svs" in line]) == 1
    assert all(line.startswith("tamis: ") for line in error.splitlines())
    assert "2 scored, 1 failed" in error
    assert not (out / "broken").exists()
    assert not list(out.glob(".part-*"))
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [(row["slide"], row["count"]) for row in rows] == [("one", "9"), ("two", "9")]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(out / "results.parquet").to_pylist()
    assert [(row["slide"], row["count"]) for row in parquet] == [("one", 9), ("two", 9)]

    (several / "slides" / "broken.svs").unlink()
    assert run(*command, "--resume", "--json") == 0
    printed = capsys.readouterr()
    told = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["status"] for line in told] == ["skipped", "skipped"]
    assert [line["input"] for line in told] == [line["slide"] for line in told]
    assert len(list(csv.DictReader((out / "results.csv").read_text().splitlines()))) == 2


def named(folder: Path) -> list[str]:
    return [row["slide"] for row in csv.DictReader((folder / "results.csv").read_text().splitlines())]


def test_the_table_is_over_the_folder_and_not_over_the_last_batch(several: Path) -> None:
    out, slides = several / "out", several / "slides"
    command = ("-o", out, "--mitoses", several / "marks.csv")
    assert run(slides / "one.tif", *command) == 0
    assert run(slides / "two.tif", *command) == 0
    (out / "foreign").mkdir()
    (out / "foreign" / "score.json").write_text('["of another program"]')
    assert run(slides / "mistyped.tif", *command) == 1
    assert named(out) == ["one", "two"]
    (slides / "two.tif").write_bytes(b"damaged since")
    assert run(slides / "two.tif", *command) == 1
    assert named(out) == ["one"], "what was scored is not what is there now"


def test_other_settings_and_an_edited_table_are_another_job(tmp_path: Path) -> None:
    marks, out = tmp_path / "marks.csv", tmp_path / "out"
    marks.write_text(MARKS.read_text())
    (item,) = plan([str(PHANTOM)], out)

    def again(**changed: Any) -> tuple[str, int]:
        given = {"settings": {"preset": "tupac"}, "mpp": None, "marks": marks} | changed
        (outcome,) = score_all([item], Job(**given), out, resume=True)
        return outcome.status, json.loads(item.output.read_text())["count"]

    assert again() == ("done", 9)
    assert again() == ("skipped", 9)
    assert again(settings={"preset": "nottingham:0.5"}) == ("done", 9)
    assert again()[0] == "done"
    marks.write_text("\n".join(MARKS.read_text().splitlines()[:4]) + "\n")
    assert again() == ("done", 3), "the path is the same, and the positions are not"
    item.output.write_text('{"provenance": []}')  # by whatever program: the batch goes on
    assert [o.status for o in score_all([item], Job(marks=marks), out, resume=True)] == ["done"]


def test_the_detector_and_the_model_are_part_of_a_job(tmp_path: Path) -> None:
    for name in (NETWORK, CANDIDATES):
        (tmp_path / f"{name}.json").write_text("{}")
    model = tmp_path / "model.json"
    model.write_text("{}")
    job = Job({"detector": tmp_path, "model": model})
    before = hashed(job).plain()
    assert set(before["sha256"]) == {NETWORK, CANDIDATES, "model"}
    assert hashed(job).plain() == before
    for path in (tmp_path / f"{CANDIDATES}.json", model):
        path.write_text(path.read_text() + " ")
        assert hashed(job).plain() != before
        before = hashed(job).plain()
    folder = tmp_path / "marks" / "05"
    folder.mkdir(parents=True)
    (folder / "01.csv").write_text("1,2\n")
    marked = hashed(Job(marks=folder.parent)).plain()
    (folder / "01.csv").write_text("1,3\n")
    assert hashed(Job(marks=folder.parent)).plain() != marked


def test_slides_named_by_their_uid_keep_it(tmp_path: Path) -> None:
    provenance = {"um_per_px": 0.25, "reader": "", "input_sha256": "", "tamis": "0"}
    record = {"predicted": {}, "hot_spot": None, "provenance": provenance}
    for name in ("1.2.840.7", "1.2.840.8"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "score.json").write_text(json.dumps(record | {"slide": name}))
    assert [row["slide"] for row in write_table(tmp_path / "out")] == ["1.2.840.7", "1.2.840.8"]


def test_tables_of_batches_go_together(tmp_path: Path) -> None:
    """Whatever is missing in one of them: a PAM50 value without a model, a hot spot without a mitosis."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    provenance = {"um_per_px": 0.25, "reader": "", "input_sha256": "", "tamis": "0"}
    bare = {"predicted": {}, "hot_spot": None, "provenance": provenance, "count": 0, "count_low": 0}
    full = {"predicted": {"pam50_proliferation": {"value": 1, "low": 0.5, "high": 1.5}}, "count": 3}
    tables = []
    for name, record in (("bare", bare), ("full", bare | full | {"hot_spot": {"x_um": 1.5, "y_um": 2}})):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "score.json").write_text(json.dumps(record))
        write_table(tmp_path / name)
        tables.append(parquet.read_table(tmp_path / name / "results.parquet"))
    together = pyarrow.concat_tables(tables).to_pylist()
    assert [row["pam50_proliferation"] for row in together] == [None, 1.0]
    assert [(row["slide"], row["count"]) for row in together] == [("bare", 0), ("full", 3)]
    assert [row["hot_spot_y_um"] for row in together] == [None, 2.0]


def test_marks_are_of_the_whole_name_of_a_series(shared_data: Path, tmp_path: Path) -> None:
    series = tmp_path / "1.2.840.7"
    series.symlink_to(shared_data / "pathology" / "wsi" / "dicom_cmu_fixed")
    marks = tmp_path / "marks.csv"
    marks.write_text("image,x_um,y_um\n1.2.840,100,100\n")
    assert "does not name the image 1.2.840.7" in failing(tmp_path / "out", series, marks=marks)


def test_what_is_not_written_every_time_does_not_stay(tmp_path: Path) -> None:
    marks = tmp_path / "marks.csv"
    marks.write_text(MARKS.read_text())
    (item,) = plan([str(PHANTOM)], tmp_path / "out")
    work(item, job=Job(marks=marks))
    names = {path.name for path in item.output.parent.iterdir()}
    for name in ("score.sr.dcm", "mitoses.ann.dcm"):
        (item.output.parent / name).write_text("of a run with --dicom and other mitoses")
    work(item, job=Job(marks=marks))
    assert {path.name for path in item.output.parent.iterdir()} == names


def test_marks_beside_the_slide_are_refused(tmp_path: Path) -> None:
    marks = tmp_path / "marks.csv"
    for place in ("50200,100", "100,-900"):
        marks.write_text(f"image,x_um,y_um\nphantom,100,100\nphantom,{place}\n")
        assert "outside the slide" in failing(tmp_path / "out", PHANTOM, marks=marks)
    marks.write_text("image,x_um,y_um\nphantom,-0.1,0\n")  # a click on the rim
    (item,) = plan([str(PHANTOM)], tmp_path / "rim")
    assert work(item, job=Job(marks=marks))["count"] == 1


@pytest.mark.parametrize("confidence", ["-0.1", "1.5", "93"])
def test_a_confidence_that_is_no_probability_is_refused(tmp_path: Path, confidence: str) -> None:
    marks = tmp_path / "marks.csv"
    marks.write_text(f"image,x_um,y_um,confidence\nphantom,100,100,{confidence}\n")
    assert f"the confidence {confidence}: a probability" in failing(tmp_path / "out", PHANTOM, marks=marks)


def test_only_finished_records_that_no_failure_followed_count(tmp_path: Path) -> None:
    for name in ("a", "b", "c", ".part-12345678.scratch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "score.json").write_text("{}")
    lines = [
        json.dumps({"output": str(tmp_path / name / "score.json"), "status": status})
        for name, status in (("a", "failed"), ("b", "done"), ("a", "done"), ("b", "failed"))
    ]
    (tmp_path / "journal.jsonl").write_text("\n".join([*lines, '{"output": "torn']))
    assert [path.parent.name for path in records(tmp_path)] == ["a", "c"]


def test_a_name_that_is_no_utf_8_is_scored(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.tif")
    try:
        shutil.copy(PHANTOM, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    marks = tmp_path / os.fsdecode(b"marks \xe9.csv")
    marks.write_text("image,x_um,y_um\ncaf\\xe9,100,100\n")
    (item,) = plan([str(odd)], tmp_path / "out")
    (outcome,) = score_all([item], Job(marks=marks), tmp_path / "out")
    assert (outcome.status, outcome.error) == ("done", "")
    assert json.loads(item.output.read_text())["slide"] == "caf\\xe9.tif"
    assert [row["slide"] for row in write_table(tmp_path / "out")] == ["caf\\xe9"]


def test_the_table_is_a_submission(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("slide,mitotic_score\nphantom,2\n")
    assert main(["proliferation", "evaluate", str(truth), str(results / "results.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task1"]["n"] == 1


def test_tasks_1_and_2_as_the_challenge_asked(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = several / "te", several / "te.csv"
    folder.mkdir()
    for number in (2, 1):
        shutil.copy(PHANTOM, folder / f"TUPAC-TE-00{number}.tif")
    marks = several / "te-marks.csv"
    lines = [f"TUPAC-TE-001,{x},{y}" for x, y in PLACES] + ["TUPAC-TE-002,,"]
    marks.write_text("\n".join(["image,x_um,y_um", *lines]))
    command = ("-o", several / "te-out", "--mitoses", marks, "--submission", file)
    assert run(folder / "TUPAC-TE-002.tif", *command) == 1
    assert "Slide 1 has no score" in capsys.readouterr().err and not file.exists()
    assert run(folder / "TUPAC-TE-001.tif", *command) == 0
    assert [line.split(",")[0] for line in file.read_text().splitlines()] == ["2", "1"]


def test_a_table_of_slides_scored_in_different_ways_says_so(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, slides = several / "mixed", several / "slides"
    command = ("-o", out, "--mitoses", several / "marks.csv")
    assert run(slides / "one.tif", *command) == 0
    assert "different ways" not in capsys.readouterr().err
    assert run(slides / "two.tif", *command, "--preset", "nottingham:0.5") == 0
    assert "results.csv holds slides that were scored in different ways" in capsys.readouterr().err
    one, two = (row["settings"] for row in csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert "preset=tupac" in one and "preset=nottingham:0.5" in two and "threshold" not in one


def test_urls_are_fetched(several: Path) -> None:
    address = (several / "slides").as_uri()
    assert inputs([f"{address}/*.tif"]) == [f"{address}/one.tif", f"{address}/two.tif"]
    assert (
        run(
            f"{address}/one.tif",
            f"{address}/none.tif",
            "-o",
            several / "out",
            "--mitoses",
            several / "marks.csv",
        )
        == 1
    )
    assert json.loads((several / "out" / "one" / "score.json").read_text())["slide"] == "one.tif"
    lines = [json.loads(text) for text in (several / "out" / "journal.jsonl").read_text().splitlines()]
    assert [line["input"] for line in lines] == [f"{address}/one.tif", f"{address}/none.tif"]
    assert "cannot be fetched" in lines[1]["error"]


def test_two_slides_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "a" / "s.tif", tmp_path / "b" / "S.svs", "-o", tmp_path / "out") == 2
    assert "would both be written to" in capsys.readouterr().err


def test_a_folder_of_one_series_is_one_slide(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    for n in range(3):
        (series / f"{n}.dcm").write_bytes(b"")
    assert inputs([str(series)]) == [str(series)]
    assert inputs([str(tmp_path)]) == [str(series)]
    assert plan([str(series)], tmp_path)[0].output == tmp_path / "series" / "score.json"


# bad input: a sentence each


def picture(path: Path, pixels: np.ndarray) -> Path:
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def failing(out: Path, slide: Path, mpp: float | None = None, marks: Path | None = None) -> str:
    """The sentence that scoring this slide ends with; nothing is left in `out`."""
    (item,) = plan([str(slide)], out)
    with pytest.raises(InputError) as error:
        work(item, job=Job(mpp=mpp, marks=marks))
    assert not out.exists() or not list(out.iterdir())
    return str(error.value)


def test_no_tissue_is_said(tmp_path: Path) -> None:
    white = picture(tmp_path / "white.png", np.full((900, 900, 3), 243, np.uint8))
    assert "no stained tissue was found" in failing(tmp_path / "out", white, 0.25)


def test_an_unknown_scale_is_refused(tmp_path: Path) -> None:
    white = picture(tmp_path / "white.png", np.full((900, 900, 3), 243, np.uint8))
    assert "--mpp" in failing(tmp_path / "out", white)


def test_a_truncated_tiff_is_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.tif"
    cut.write_bytes(PHANTOM.read_bytes()[:200_000])
    assert "cut.tif" in failing(tmp_path / "out", cut)


def test_a_slide_that_the_table_does_not_name_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tif"
    shutil.copy(PHANTOM, other)
    assert "does not name the image other" in failing(tmp_path / "out", other, marks=MARKS)


def test_what_does_not_exist_is_said(tmp_path: Path) -> None:
    assert "no.svs" in failing(tmp_path / "out", tmp_path / "no.svs")


def test_broken_and_fluorescent_slides_are_refused(shared_data: Path, tmp_path: Path) -> None:
    slides = shared_data / "pathology" / "wsi"
    assert "broken.svs" in failing(tmp_path / "out", slides / "broken.svs")
    fluorescent = failing(tmp_path / "out", slides / "test3-DAPI-2-387.ndpi", 0.23)
    assert "H&E" in fluorescent or "dark" in fluorescent


def test_a_series_with_a_missing_instance_is_refused(shared_data: Path, tmp_path: Path) -> None:
    series = tmp_path / "series"
    shutil.copytree(shared_data / "pathology" / "wsi" / "dicom_cmu_fixed", series)
    files = sorted(series.iterdir(), key=lambda p: p.stat().st_size)
    files[-1].chmod(0o644)
    files[-1].unlink()
    assert "series" in failing(tmp_path / "out", series)


def test_wrong_usage_is_refused_before_any_work(tmp_path: Path) -> None:
    assert run(PHANTOM, "-o", tmp_path / "out", "--preset", "elston") == 2
    assert run(PHANTOM, "-o", tmp_path / "out", "--regions", "-3") == 2
    out, wrong = tmp_path / "out", tmp_path / "wrong.txt"
    wrong.write_text("neither weights nor a table")
    for option, value in (
        ("--model", "none.json"),
        ("--model", "wrong.txt"),
        ("--detector", "."),
        ("--mitoses", "wrong.txt"),
    ):
        assert run(PHANTOM, "-o", out, option, tmp_path / value) == 1
    with pytest.raises(SystemExit):  # no mitosis is as likely as that: every slide would have the score 1
        run(PHANTOM, "-o", out, "--threshold", "2")
    assert not out.exists()


def test_regions_limit_the_search_on_a_slide_that_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis.proliferation import score as module

    searched: list[object] = []

    def nothing(slide: object, regions: object, *_: object) -> tuple[list[Mitosis], dict[str, str]]:
        searched.append(regions)
        return [], {}

    monkeypatch.setattr(module, "_detected", nothing)
    with open_slide(PHANTOM) as slide:
        assert score(slide).whole
        monkeypatch.setattr(module, "AREA_MM2", 0.001)
        limited = score(slide, Settings(regions=1))
        assert score(slide, Settings(regions=0)).whole
    assert searched[0] is None and searched[2] is None
    assert searched[1] == limited.regions and not limited.whole

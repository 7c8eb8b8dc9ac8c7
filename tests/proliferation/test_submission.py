"""python -m pytest tests/proliferation/test_submission.py"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tamis.errors import InputError
from tamis.proliferation.scoring import ENDINGS
from tamis.proliferation.submission import (
    Submission,
    find_submissions,
    read_submission,
    read_truth,
    write_points,
    write_scores,
)


def put(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Submission:
    """Both parts: three slides, and three images in two cases of which one has no mitosis."""
    folder = tmp_path / "truth"
    put(folder / "ground_truth.csv", "1,-0.5", "2,0.1", "3,0.9")
    put(folder / "01" / "01.csv", "100,200", "400,500")
    put(folder / "01" / "02.csv")
    put(folder / "02" / "01.csv", "10,20")
    return read_truth(folder)


# the published format


def test_rows_are_y_before_x_and_scaled_by_the_resolution(truth: Submission, tmp_path: Path) -> None:
    assert truth.points is not None
    assert truth.points.images["01/01"][:, :2].tolist() == [[50.0, 25.0], [125.0, 100.0]]
    assert truth.points.images["01/02"].shape == (0, 3)
    wide = read_truth(tmp_path / "truth", um_per_px=0.5)
    assert wide.points is not None
    assert wide.points.images["02/01"][0, :2].tolist() == [10.0, 5.0]


def test_a_task_of_minus_ones_is_not_entered(truth: Submission, tmp_path: Path) -> None:
    found = read_submission(put(tmp_path / "a.csv", "1,-1", "2,-1", "3,-1"), truth)
    assert found.scores is not None
    assert found.scores.mitotic_score is not None
    assert found.scores.pam50_proliferation is None


def test_what_is_written_is_read_again(truth: Submission, tmp_path: Path) -> None:
    assert truth.points is not None
    write_scores(tmp_path / "out" / "scores.csv", [3, 1, 2], None)
    write_points(tmp_path / "out", truth.points.images)
    assert (tmp_path / "out" / "scores.csv").read_text() == "3,-1\n1,-1\n2,-1\n"
    assert (tmp_path / "out" / "01" / "01.csv").read_text() == "100,200\n400,500\n"
    assert (tmp_path / "out" / "01" / "02.csv").read_text() == ""
    again = read_submission(tmp_path / "out", truth)
    assert again.points is not None and again.scores is not None and again.scores.mitotic_score is not None
    assert again.scores.mitotic_score.tolist() == [3, 1, 2]
    for image, points in truth.points.images.items():
        assert np.array_equal(again.points.images[image], points, equal_nan=True)


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2 is not a finite number"):
        write_scores(tmp_path / "scores.csv", [1, float("nan")], None)
    with pytest.raises(InputError, match="a mitotic score is 1, 2 or 3"):
        write_scores(tmp_path / "scores.csv", [1, 4], None)
    assert not list(tmp_path.iterdir())


# the friendlier format


def test_ids_bring_rows_into_the_truths_order(tmp_path: Path) -> None:
    truth = read_truth(
        put(tmp_path / "t.csv", "slide,mitotic_score,pam50_proliferation", "a,1,0.1", "b,3,0.2")
    )
    found = read_submission(put(tmp_path / "p.csv", "pam50,id", "7,b", "5,a"), truth)
    assert found.scores is not None and found.scores.pam50_proliferation is not None
    assert found.scores.pam50_proliferation.tolist() == [5, 7]
    assert found.scores.mitotic_score is None


def test_the_number_of_an_id_says_which_row_of_a_truth_without_ids(truth: Submission, tmp_path: Path) -> None:
    lines = ["slide,mitotic_score", "TUPAC-TE-003,3", "TUPAC-TE-001,1", "TUPAC-TE-002,2"]
    found = read_submission(put(tmp_path / "p.csv", *lines), truth)
    assert found.scores is not None and found.scores.mitotic_score is not None
    assert found.scores.mitotic_score.tolist() == [1, 2, 3]


def test_a_row_without_id_is_the_truths_slide_of_that_number(tmp_path: Path) -> None:
    """Whatever the order of the truth's rows."""
    rows = ["TE-003,3", "TE-002,2", "TE-001,1", "TE-004,1", "TE-005,2"]
    truth = read_truth(put(tmp_path / "t.csv", "slide,mitotic_score", *rows))
    plain = put(tmp_path / "p.csv", "1,-1", "2,-1", "3,-1", "1,-1", "2,-1")
    found = read_submission(plain, truth)
    assert found.scores is not None and found.scores.mitotic_score is not None
    assert found.scores.mitotic_score.tolist() == [3, 2, 1, 1, 2]
    assert truth.scores is not None and found.scores.ids == truth.scores.ids
    for ids in (["a", "b"], ["s1", "s3"], ["s0", "s1"], ["s1", "t1"]):
        named = read_truth(put(tmp_path / "n.csv", "slide,mitotic_score", *[f"{i},1" for i in ids]))
        with pytest.raises(InputError, match=r"p2\.csv has no ids.* not numbered from 1 to 2 .*column slide"):
            read_submission(put(tmp_path / "p2.csv", "1,-1", "2,-1"), named)


def test_one_table_of_all_mitoses(truth: Submission, tmp_path: Path) -> None:
    table = put(
        tmp_path / "p.csv", "case,tile,row_y,col_x,confidence", "01,01,100,200,0.9", "02,01,10,20,0.4"
    )
    found = read_submission(table, truth)
    assert found.points is not None
    assert found.points.images["01/01"].tolist() == [[50.0, 25.0, 0.9]]
    assert found.points.images["01/02"].shape == (0, 3)
    records = put(
        tmp_path / "p.jsonl",
        '{"image": "01/01.tif", "mitoses": [{"x_um": 50, "y_um": 25, "probability": 0.9}]}',
        '{"image": "/somewhere/images/01/02.tif", "mitoses": []}',
        '{"image": "02/01.tif", "mitoses": []}',
    )
    detected = read_submission(records, truth)
    assert detected.points is not None
    assert detected.points.images["01/01"].tolist() == [[50.0, 25.0, 0.9]]


def test_micrometres_need_no_resolution(tmp_path: Path) -> None:
    table = put(tmp_path / "p.csv", "image,x_um,y_um", "a.png,3,4", "b.png,,")
    found = read_truth(table, um_per_px=123.0)
    assert found.points is not None
    assert found.points.images["a"][0, :2].tolist() == [3.0, 4.0]
    assert found.points.images["b"].shape == (0, 3)


@pytest.mark.parametrize("ending", ["", ".TIF", *sorted(ENDINGS)])
def test_an_image_is_known_with_and_without_its_ending(
    truth: Submission, tmp_path: Path, ending: str
) -> None:
    name = f"01/01{ending}"
    table = read_submission(put(tmp_path / "p.csv", "image,row,col", f"{name},100,200"), truth)
    lines = [
        json.dumps({"image": image, "mitoses": [{"x_um": 50, "y_um": 25}] if image == name else []})
        for image in (name, "01/02", "02/01")
    ]
    records = read_submission(put(tmp_path / "p.jsonl", *lines), truth)
    for found in (table, records):
        assert found.points is not None
        assert found.points.images["01/01"][:, :2].tolist() == [[50.0, 25.0]]


def test_what_only_looks_like_an_ending_stays(tmp_path: Path) -> None:
    """DICOM series are named by UIDs."""
    lines = [f'{{"image": "1.2.840.{n}", "mitoses": []}}' for n in (7, 8)]
    found = read_truth(put(tmp_path / "p.jsonl", *lines)).points
    assert found is not None and set(found.images) == {"1.2.840.7", "1.2.840.8"}


def test_records_may_stand_in_a_list_over_many_lines_or_behind_a_mark(tmp_path: Path) -> None:
    """As an editor saves them, and with the byte order mark that Windows puts before UTF-8."""
    record = {"image": "05/01", "mitoses": [{"x_um": 3, "y_um": 4, "probability": None}]}
    texts = [json.dumps(record, indent=2), json.dumps([record], indent=2), json.dumps(record) + "\r\n\r\n"]
    texts += ["\ufeff" + text for text in texts]
    for text in texts:
        (tmp_path / "p.json").write_text(text, encoding="utf-8")
        found = read_truth(tmp_path / "p.json").points
        assert found is not None and found.images["05/01"][:, :2].tolist() == [[3.0, 4.0]]


def test_semicolons_between_numbers_with_decimal_commas(tmp_path: Path) -> None:
    """As spreadsheets write a table where the comma is the decimal point."""
    named = put(tmp_path / "n.csv", "slide;mitotic_score;pam50", "a;1;-0,5", "b;3;1,5E-1", "c;2;7")
    plain = put(tmp_path / "p.csv", "1;-0,5", "3;,15", "2;7")
    for path in (named, plain):
        found = read_truth(path).scores
        assert found is not None and found.mitotic_score is not None and found.pam50_proliferation is not None
        assert found.mitotic_score.tolist() == [1, 3, 2]
        assert found.pam50_proliferation.tolist() == [-0.5, 0.15, 7]
    with_commas = put(tmp_path / "c.csv", "slide,note;text,pam50", "a;b,x,0.5")
    found = read_truth(with_commas).scores
    assert found is not None and found.ids == ("a;b",)
    points = read_truth(put(tmp_path / "m.csv", "image;x_um;y_um", "a;3,5;4", "b;;")).points
    assert points is not None and points.images["a"][:, :2].tolist() == [[3.5, 4.0]]


# refusals


def test_an_image_that_detect_could_not_read_is_missing_and_not_empty(
    truth: Submission, tmp_path: Path
) -> None:
    lines = [json.dumps({"image": image, "mitoses": []}) for image in ("01/01", "02/01")]
    failed = json.dumps({"image": "01/02", "error": "01/02.tif is damaged."})
    with pytest.raises(InputError, match=r"no record for 01/02 .*an empty record says so"):
        read_submission(put(tmp_path / "p.jsonl", *lines, failed), truth)


@pytest.mark.parametrize("place", ["null", "NaN", "Infinity"])
def test_a_record_without_a_place_is_refused(truth: Submission, tmp_path: Path, place: str) -> None:
    records = put(tmp_path / "p.jsonl", f'{{"image": "01/01", "mitoses": [{{"x_um": {place}, "y_um": 2}}]}}')
    with pytest.raises(InputError, match=r"01/01 .* no finite number"):
        read_submission(records, truth)


def test_two_images_of_one_name_are_refused(truth: Submission, tmp_path: Path) -> None:
    """The second would stand in the place of the first."""

    def lines(*images: str) -> list[str]:
        return [json.dumps({"image": image, "mitoses": []}) for image in images]

    with pytest.raises(InputError, match="names 01/01 more than once"):
        read_submission(put(tmp_path / "p.jsonl", *lines("01/01.tif", "01/01.png", "01/02", "02/01")), truth)
    with pytest.raises(InputError, match="a/01/01 and b/01/01, which are both 01/01"):
        read_submission(put(tmp_path / "p.jsonl", *lines("a/01/01", "b/01/01", "01/02", "02/01")), truth)
    table = put(tmp_path / "p.csv", "image,row,col", "01/01.tif,1,2", "01/01.tif,3,4", "01/01.png,1,2")
    with pytest.raises(InputError, match=r"01/01\.tif and 01/01\.png"):
        read_submission(table, truth)


def test_no_task_in_common_is_refused(tmp_path: Path) -> None:
    """Nothing would be printed, and nothing said."""
    one = put(tmp_path / "t.csv", "slide,mitotic_score", "a,1", "b,2")
    two = put(tmp_path / "p.csv", "slide,pam50", "a,0.1", "b,0.2")
    with pytest.raises(InputError, match=r"p\.csv enters task 2, and the truth has task 1 alone"):
        read_submission(two, read_truth(one))
    with pytest.raises(InputError, match=r"t\.csv enters task 1, and the truth has task 2 alone"):
        read_submission(one, read_truth(two))


def test_a_cell_without_an_end_is_refused(truth: Submission, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a table"):
        read_submission(put(tmp_path / "p.csv", "1," + "9" * 200_000), truth)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["1,0.1", "nan,0.2", "3,0.3"], "task 1 .*row 2 is not a finite number"),
        (["1,0.1", "2,nan", "3,0.3"], "task 2 .*row 2 is not a finite number"),
        (["1,0.1", "2,inf", "3,0.3"], "task 2 .*row 2 is not a finite number"),
        (["1,0.1", "-1,0.2", "3,0.3"], "task 1 .*row 2 is -1.*or -1 to all"),
        (["1,0.1", "2,-1", "3,0.3"], "task 2 .*row 2 is -1"),
        (["1,0.1", "2,0.2"], "has 2 rows, and the truth ground_truth.csv has 3"),
        (["1,0.1", "2,0.2", "3,0.3", "1,0.1"], "has 4 rows"),
        (["1,0.1", "2.5,0.2", "3,0.3"], "row 2 is 2.5; a mitotic score is 1, 2 or 3"),
        (["1,0.1", "2,high", "3,0.3"], "row 2: 'high' is no number"),
        (["1,0.1,5", "2,0.2,5", "3,0.3,5"], "row 1 has 3 columns: two were expected"),
        (["-1,-1", "-1,-1", "-1,-1"], "enters neither task 1 nor task 2"),
        ([], "is empty"),
        (["this,that", "1,2"], "holds neither numbers nor a known column name"),
        (["slide,mitotic_score", "1,1", "2,2", "2,3"], "names 2 more than once"),
        (["slide,mitotic_score", "1,1", "2,2", "7,3"], "lacks 3 and has 7"),
        (["slide,mitotic_score", "a-1,1", "b-01,2", "2,3", "3,1"], "a-1 and b-01, which are both slide 1"),
    ],
)
def test_wrong_rows_are_refused_in_a_sentence(
    truth: Submission, tmp_path: Path, lines: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        read_submission(put(tmp_path / "p.csv", *lines), truth)


def test_an_image_too_few_or_too_many_is_refused(truth: Submission, tmp_path: Path) -> None:
    put(tmp_path / "p" / "01" / "01.csv", "100,200")
    put(tmp_path / "p" / "02" / "01.csv")
    with pytest.raises(InputError, match=r"no file for 01/02 .*an empty file says so"):
        read_submission(tmp_path / "p", truth)
    put(tmp_path / "p" / "01" / "02.csv")
    put(tmp_path / "p" / "03" / "01.csv", "1,2")
    with pytest.raises(InputError, match=r"mitoses in 03/01, which the truth .* does not know"):
        read_submission(tmp_path / "p", truth)


@pytest.mark.parametrize("line", ["nan,3", "1", "1,2,3,4", "1,inf"])
def test_a_place_that_is_none_is_refused(truth: Submission, tmp_path: Path, line: str) -> None:
    put(tmp_path / "p" / "01" / "01.csv", line)
    with pytest.raises(InputError, match="row 1"):
        read_submission(tmp_path / "p", truth)


def test_a_table_of_something_else_in_a_sub_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "results.csv").write_text("slide,mitotic_score\na,2\n")
    with pytest.raises(InputError, match=r"p1/results\.csv has no column col and no column row"):
        read_truth(tmp_path)


def test_what_is_no_text_or_not_there_is_refused(truth: Submission, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not a text file"):
        read_submission(tmp_path / "p.csv", truth)
    with pytest.raises(InputError, match="does not exist"):
        read_submission(tmp_path / "q.csv", truth)
    with pytest.raises(InputError, match="detect --json"):
        read_submission(put(tmp_path / "p.jsonl", '{"image": 3}'), truth)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_truth_of_no_image_is_refused(tmp_path: Path, name: str) -> None:
    """A table with its header alone, as of a search that found nothing."""
    with pytest.raises(InputError, match="names no image: a row for every mitosis"):
        read_truth(put(tmp_path / name, *["image,x_um,y_um"][: name.endswith("csv")]))


def test_a_place_on_no_slide_is_refused(truth: Submission, tmp_path: Path) -> None:
    """The square of its distance is beyond every number, which ended the whole leaderboard."""
    put(tmp_path / "p" / "01" / "01.csv", "1e308,3")
    with pytest.raises(InputError, match=r"row 1: 1e308 lies on no slide"):
        read_submission(tmp_path / "p", truth)
    with pytest.raises(InputError, match=r"row 1: -1e10 lies on no slide"):
        read_submission(put(tmp_path / "p.csv", "image,x_um,y_um", "01/01,1,-1e10"), truth)
    records = put(tmp_path / "p.jsonl", '{"image": "01/01", "mitoses": [{"x_um": -1e308, "y_um": 2}]}')
    with pytest.raises(InputError, match=r"01/01 has a mitosis at 1e\+308 um, which lies on no slide"):
        read_submission(records, truth)


def test_records_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detect --json` prints \(RecursionError"):
        read_truth(put(tmp_path / "p.json", "[" * 100_000 + "]" * 100_000))
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(InputError, match=r"loop\.jsonl cannot be read: Too many levels"):
        read_truth(tmp_path / "loop.jsonl")


# one submission or many


def test_a_folder_of_submissions_is_told_from_a_submission(truth: Submission, tmp_path: Path) -> None:
    put(tmp_path / "all" / "one.csv", "1,-1", "2,-1", "3,-1")
    put(tmp_path / "all" / "two" / "01" / "01.csv", "100,200")
    assert find_submissions(tmp_path / "all", truth) == [
        tmp_path / "all" / "one.csv",
        tmp_path / "all" / "two",
    ]
    assert find_submissions(tmp_path / "all" / "two", truth) == [tmp_path / "all" / "two"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no submission"):
        find_submissions(tmp_path / "none", truth)


def test_both_parts_are_one_submission_whatever_the_truth_has(tmp_path: Path) -> None:
    """Tasks 1 and 2 of a submission that has all three, against a truth of scores alone."""
    truth = read_truth(put(tmp_path / "t.csv", "1,0.1", "2,0.2"))
    put(tmp_path / "all" / "scores.csv", "1,0.3", "2,0.5")
    put(tmp_path / "all" / "05" / "01.csv", "100,200,0.9")
    put(tmp_path / "all" / "05" / "02.csv")
    put(tmp_path / "all" / "06" / "01.csv", "2,2")
    assert find_submissions(tmp_path / "all", truth) == [tmp_path / "all"]
    found = read_submission(tmp_path / "all", truth)
    assert found.scores is not None and found.points is None
    assert "task 3, for which the truth has no mitoses: not evaluated" in found.notes[0]


def test_a_folder_of_results_is_one_submission(tmp_path: Path) -> None:
    """What `tamis proliferation score -o DIR` leaves: a folder a slide, the table, the journal."""
    truth = read_truth(put(tmp_path / "t.csv", "slide,mitotic_score", "a,1", "b,2"))
    for name in ("mine", "theirs"):
        folder = tmp_path / "board" / name
        put(folder / "results.csv", "slide,mitotic_score,settings", "a,1,x", "b,3,x")
        put(folder / "journal.jsonl", '{"input": "a.svs", "status": "done"}')
        put(folder / "a" / "score.json", "{}")
    assert find_submissions(tmp_path / "board" / "mine", truth) == [tmp_path / "board" / "mine"]
    for path in find_submissions(tmp_path / "board", truth):
        found = read_submission(path, truth)
        assert found.name in ("mine", "theirs")
        assert found.scores is not None and found.scores.mitotic_score is not None
        assert found.scores.mitotic_score.tolist() == [1, 3]
    assert len(find_submissions(tmp_path / "board", truth)) == 2

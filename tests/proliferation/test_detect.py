"""Detection: candidates, suppression, blocks that join, and the published weights.

python -m pytest tests/proliferation/test_detect.py
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tamis import weights
from tamis.cli import main
from tamis.proliferation.candidates import INPUTS, CandidateScorer, dark_nuclei, nuclei_with_samples
from tamis.proliferation.detect import (
    FOLDER,
    NETWORK,
    Detector,
    Effort,
    _Chunk,
    detect,
    published_detector,
    suppress,
)
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import Region
from tamis.slides import Slide, open_slide


def blobs(places: list[tuple[int, int]], height: int = 400, width: int = 500, radius: int = 9) -> np.ndarray:
    """Dark blue discs on pink."""
    pixels = np.full((height, width, 3), (225, 170, 205), np.uint8)
    for x, y in places:
        cv2.circle(pixels, (x, y), radius, (60, 35, 110), -1, cv2.LINE_AA)
    return pixels


def save(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return path


def test_dark_nuclei_are_found_where_they_are() -> None:
    places = [(50, 60), (200, 100), (3, 300), (497, 398)]
    found = dark_nuclei(blobs(places))
    for place in places:
        assert np.hypot(*(found - place).T).min() < 6
    assert len(found) == len(places)


def test_ink_does_not_flood_with_candidates() -> None:
    """A plateau is a peak everywhere; one place per cell is kept."""
    assert len(dark_nuclei(np.zeros((512, 512, 3), np.uint8))) <= (256 // 13 + 1) ** 2


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (31, 130)])
def test_any_size_has_samples(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 90, np.uint8)
    places, samples = nuclei_with_samples(pixels)
    assert samples.shape == (len(places), INPUTS)


def test_suppression_keeps_the_likeliest_within_its_radius() -> None:
    some = [Mitosis(0, 0, 0.7), Mitosis(7, 0, 0.9), Mitosis(15, 0, 0.6), Mitosis(100, 0, 0.2)]
    assert suppress(some) == [Mitosis(7, 0, 0.9), Mitosis(15, 0, 0.6), Mitosis(100, 0, 0.2)]


def test_suppression_equals_brute_force() -> None:
    generator = np.random.default_rng(0)
    some = [Mitosis(*generator.uniform(0, 120, 2), generator.random()) for _ in range(300)]
    kept: list[Mitosis] = []
    for m in sorted(some, key=lambda m: -m.probability):
        if all(np.hypot(m.x_um - o.x_um, m.y_um - o.y_um) > 7.5 for o in kept):
            kept.append(m)
    assert suppress(some) == kept


def test_the_published_network_gives_its_golden_output() -> None:
    record = weights.load(FOLDER / f"{NETWORK}.json")
    with np.load(io.BytesIO(weights.read_golden(record)), allow_pickle=False) as golden:
        (out,) = published_detector().session.run(None, {"pixels": golden["input"]})
        assert np.abs(out - golden["output"]).max() < 1e-3
    assert "research" in record.licence and record.path.stat().st_size < 12e6


def test_a_position_of_the_map_is_about_the_window_around_it() -> None:
    """Not more than about: where a window ends, zeros pad it, and the map goes on."""
    pixels = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8), (0, 0), 3
    )
    (chances,) = published_detector().session.run(None, {"pixels": pixels[None]})
    assert chances.shape == (1, 9, 9)
    windows = [pixels[y : y + 128, x : x + 128] for y in range(0, 129, 16) for x in range(0, 129, 16)]
    alone = published_detector()._once(np.stack(windows)).reshape(9, 9)  # not its mirror images, too
    mapped, single = (np.log(p / (1 - p)) for p in (chances[0], alone))
    assert np.corrcoef(mapped.ravel(), single.ravel())[0, 1] > 0.8
    assert np.corrcoef(mapped.T.ravel(), single.ravel())[0, 1] < 0.5
    assert np.abs(mapped - single).max() < 2


def fixed(chance: float = 0.8) -> Detector:
    """The published network with a perceptron that lets everything through."""
    published = published_detector()
    detector = Detector.__new__(Detector)
    detector.__dict__ |= published.__dict__
    zeros = np.zeros((INPUTS, 1), np.float32)
    detector.scorer = CandidateScorer(zeros, np.zeros(1, np.float32), np.zeros(1, np.float32), 0.0)
    detector.probabilities = lambda windows: np.full(len(windows), chance)  # type: ignore[method-assign]
    return detector


def test_every_nucleus_is_seen_once_across_blocks(tmp_path: Path) -> None:
    places = [(x, y) for y in range(40, 1500, 90) for x in (30, 700, 1018, 1024, 1030, 1290)]
    path = save(tmp_path / "wide.png", blobs(places, 1500, 1300, 5))
    with open_slide(path, mpp=0.25) as slide:
        effort = Effort()
        found = detect(slide, threshold=0, detector=fixed(), effort=effort)
    assert effort.blocks == 4
    rows = {m.y_um for m in found}
    assert len(rows) == 17
    for x in (30, 700, 1290):
        assert sum(abs(m.x_um / 0.25 - x) < 6 for m in found) == 17


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_places_are_in_um_whatever_the_scale(tmp_path: Path, mpp: float) -> None:
    path = save(tmp_path / "one.png", blobs([(120, 80)], 200, 300))
    with open_slide(path, mpp=mpp) as slide:
        found = detect(slide, threshold=0, detector=fixed())
    assert len(found) >= 1
    assert min(np.hypot(m.x_um - 120 * mpp, m.y_um - 80 * mpp) for m in found) < 2.5


def test_regions_limit_the_search(tmp_path: Path) -> None:
    path = save(tmp_path / "two.png", blobs([(100, 100), (400, 300)]))
    with open_slide(path, mpp=0.25) as slide:
        found = detect(slide, [Region(0, 0, 50, 50, 0)], threshold=0, detector=fixed())
    assert [round(m.x_um / 12.5) for m in found] == [2]


def test_black_padding_is_not_searched(tmp_path: Path) -> None:
    pixels = blobs([(200, 200)])
    pixels[:, :90] = 0
    with open_slide(save(tmp_path / "padded.png", pixels), mpp=0.25) as slide:
        found = detect(slide, threshold=0, detector=fixed())
    assert len(found) == 1 and abs(found[0].x_um - 50) < 1.5


def test_one_record_an_image_also_when_nothing_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = save(tmp_path / "empty.png", np.full((128, 128, 3), 240, np.uint8))
    cells = save(tmp_path / "cells.png", blobs([(60, 60)], 128, 128))
    status = main(
        ["proliferation", "detect", str(empty), str(cells), "--mpp", "0.25", "--threshold", "0", "--json"]
    )
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert records[0] == {"image": str(empty), "mitoses": []}
    assert records[1]["image"] == str(cells)
    assert set(records[1]["mitoses"][0]) == {"x_um", "y_um", "probability"}


def test_task_3_as_the_challenge_asked(tmp_path: Path) -> None:
    field = save(tmp_path / "01.png", blobs([(60, 60)], 128, 128))
    (tmp_path / "05").mkdir()
    field = field.rename(tmp_path / "05" / "01.png")
    empty = save(tmp_path / "05" / "02.png", np.full((128, 128, 3), 240, np.uint8))
    command = ["proliferation", "detect", str(field), str(empty), "--mpp", "0.25", "--threshold", "0"]
    assert main([*command, "--submission", str(tmp_path / "out")]) == 0
    row, column, confidence = map(float, (tmp_path / "out" / "05" / "01.csv").read_text().split(","))
    assert abs(row - 60) < 4 and abs(column - 60) < 4 and 0 <= confidence <= 1
    assert (tmp_path / "out" / "05" / "02.csv").read_text() == ""


def test_a_submission_is_in_the_pixels_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "05").mkdir()
    field = save(tmp_path / "05" / "01.png", blobs([(60, 40)], 128, 128, 5))
    command = ["proliferation", "detect", str(field), "--mpp", "0.5", "--threshold", "0"]
    assert main([*command, "--submission", str(tmp_path / "out")]) == 0
    row, column, _ = map(float, (tmp_path / "out" / "05" / "01.csv").read_text().split("\n")[0].split(","))
    assert abs(row - 40) < 4 and abs(column - 60) < 4


def test_two_images_of_one_name_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [tmp_path / side / "05" / "01.png" for side in ("x", "y")]
    for image in images:
        image.parent.mkdir(parents=True)
        save(image, blobs([], 128, 128))
    command = ["proliferation", "detect", *map(str, images), "--mpp", "0.25"]
    assert main([*command, "--submission", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert "would both be written to" in printed.err and not printed.out
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_a_fault_of_ours_does_not_end_the_other_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (save(tmp_path / f"{name}.png", blobs([], 128, 128)) for name in ("one", "other"))

    def faulty(slide: Slide, **_: object) -> list[Mitosis]:
        if slide.path == one:
            raise ZeroDivisionError("of ours")
        return []

    monkeypatch.setattr("tamis.proliferation.detect.detect", faulty)
    command = ["proliferation", "detect", str(one), str(other), "--mpp", "0.25"]
    assert main([*command, "--json"]) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["image"] for line in printed.out.splitlines()] == [str(one), str(other)]
    assert "one.png: an unexpected fault, ZeroDivisionError: of ours" in printed.err
    assert "Traceback" not in printed.err
    assert main([*command, "--json", "--debug"]) == 1
    printed = capsys.readouterr()
    assert "Traceback" in printed.err and len(printed.out.splitlines()) == 2


def test_a_broken_image_is_one_line_and_the_others_finish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    good = save(tmp_path / "good.png", blobs([], 128, 128))
    assert main(["proliferation", "detect", str(broken), str(good), "--mpp", "0.25", "--json"]) == 1
    seen = capsys.readouterr()
    assert "damaged" in seen.err and "Traceback" not in seen.err
    first, second = (json.loads(line) for line in seen.out.splitlines())
    assert first["image"] == str(broken) and set(first) == {"image", "error"}
    assert f"tamis: {first['error']}\n" == seen.err
    assert second["image"] == str(good) and second["mitoses"] == []


def test_a_field_and_a_slide_have_their_own_thresholds(tmp_path: Path) -> None:
    chosen = fixed(0.6)
    chosen.threshold, chosen.field_threshold, chosen.least_candidate = 0.7, 0.5, -4.0
    for side, found in ((256, 1), (1000, 0), (2400, 0)):  # 0.004, 0.06 and 0.36 mm2
        with open_slide(save(tmp_path / f"{side}.png", blobs([(128, 128)], side, side)), mpp=0.25) as slide:
            assert len(detect(slide, detector=chosen)) == found
            assert len(detect(slide, detector=chosen, threshold=0.55)) == 1
    steps = [chosen.threshold_of(area) for area in (0.001, 0.005, 0.02, 0.06, 50)]
    assert steps == sorted(steps) and steps[0] == steps[1] == 0.5 and steps[3] == steps[4] == 0.7


def test_a_nucleus_cut_by_the_edge_of_the_picture_is_no_mitosis(tmp_path: Path) -> None:
    """But one at the edge of a block is, and of padding only the tissue's side counts as an edge."""
    picture = blobs([(3, 200), (496, 100), (250, 397), (250, 200)])
    with open_slide(save(tmp_path / "cut.png", picture), mpp=0.25) as slide:
        (found,) = detect(slide, threshold=0, detector=fixed())
    assert np.hypot(found.x_um - 62.5, found.y_um - 50) < 1.5
    padded = np.concatenate([np.zeros((400, 100, 3), np.uint8), picture], 1)
    with open_slide(save(tmp_path / "padded and cut.png", padded), mpp=0.25) as slide:
        assert len(detect(slide, threshold=0, detector=fixed())) == 1


class EveryWindow:
    """A detector that believes everything."""

    def probabilities(self, windows: np.ndarray) -> np.ndarray:
        return np.full(len(windows), 0.8)


@pytest.mark.parametrize(
    ("per_mm2", "odds", "kept"),
    [
        (2.0, ([0.1, 0.9, 0.5], [0.8, 0.2]), [1, 3]),  # of both blocks together
        (9.0, ([0.1, 0.9, 0.5], [0.8, 0.2]), [0, 1, 2, 3, 4]),
        (1.0, ([5.0, 6.0, 0.5], [7.0, 4.5]), [0, 1, 3, 4]),  # what is sure is seen however many there are
        (0.0, ([0.1, 0.9, 0.5], [0.8, 0.2]), []),
    ],
)
def test_the_network_sees_the_likeliest_of_so_many(
    per_mm2: float, odds: tuple[list[float], list[float]], kept: list[int]
) -> None:
    effort = Effort()
    chunk = _Chunk(EveryWindow(), per_mm2, 0.5, effort)  # type: ignore[arg-type]
    at = 0
    for some in odds:
        places = np.array([(200.0 * (at + i), 0.0) for i in range(len(some))])
        windows = np.zeros((len(some), 128, 128, 3), np.uint8)
        chunk.add(places, np.array(some, np.float32), windows, 8e6)  # half a mm2
        at += len(some)
    assert chunk.found == []  # not before so much tissue is there
    chunk.look()
    assert [round(m.x_um / 50) for m in chunk.found] == kept
    assert effort.windows == len(kept) and effort.seen_px == len(kept) * 128 * 128


def test_a_stain_that_makes_everything_sure_does_not_lift_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """But the first tissue of a slide, which may be all of a biopsy, has a number of its own."""
    monkeypatch.setattr("tamis.proliferation.detect.SURE_ANYWHERE", 17)
    effort = Effort()
    chunk = _Chunk(EveryWindow(), 10.0, 0.5, effort)  # type: ignore[arg-type]
    seen = []
    for _ in range(2):
        places = np.array([(200.0 * i, 0.0) for i in range(40)])
        chunk.add(places, np.arange(40, dtype=np.float32) + 3, np.zeros((40, 128, 128, 3), np.uint8), 16e6)
        chunk.look()
        seen.append(effort.windows)
    assert seen == [17, 17 + 13]
    assert min(m.x_um for m in chunk.found) > 200.0 * 22 * 0.25  # the likeliest of them


def test_not_many_windows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """However dark a slide is, so that memory has a bound."""
    monkeypatch.setattr("tamis.proliferation.detect.MOST_WAITING", 5)
    chunk = _Chunk(EveryWindow(), 3.0, 0.5, Effort())  # type: ignore[arg-type]
    for i in range(4):
        places = np.array([(200.0 * i, 0.0), (200.0 * i, 200.0)])
        chunk.add(places, np.array([i, 9 - i], np.float32), np.zeros((2, 128, 128, 3), np.uint8), 16e4)
    assert len(chunk.waiting) == 1 and chunk.mm2 == pytest.approx(0.01)
    assert len(chunk.found) == 3  # those of three blocks that are sure


def test_what_the_network_saw_is_counted_once() -> None:
    effort = Effort()
    chunk = _Chunk(EveryWindow(), np.inf, 0.5, effort)  # type: ignore[arg-type]
    for x in (100.0, 100.0, 164.0):
        chunk.add(np.array([(x, 80.0)]), np.ones(1, np.float32), np.zeros((1, 128, 128, 3), np.uint8), 1e6)
    assert effort.seen_px == (128 + 64) * 128
    effort.next_slide()
    assert effort.seen_px == (128 + 64) * 128


def test_unknown_scale_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "no scale.png", blobs([]))
    assert main(["proliferation", "detect", str(path), "--json"]) == 1
    assert "--mpp" in capsys.readouterr().err


def test_too_coarse_a_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "thumbnail.png", blobs([(60, 60)], 128, 128))
    assert main(["proliferation", "detect", str(path), "--mpp", "4", "--json"]) == 1
    assert "4 um per pixel" in capsys.readouterr().err
    assert main(["proliferation", "detect", str(path), "--mpp", "1", "--json"]) == 0


def test_a_folder_of_dicom_files_is_one_slide(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data / "pathology" / "wsi" / "dicom_cmu_fixed"
    assert main(["proliferation", "detect", str(folder), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["image"] == str(folder)


def test_a_faint_stain_has_its_nuclei_too() -> None:
    places = [(100, 100), (250, 200), (400, 300)]
    pixels = blobs(places).astype(np.float32)
    faint = (255 - (255 - pixels) * 0.45).astype(np.uint8)
    found = dark_nuclei(faint)
    assert all(np.hypot(*(found - place).T).min() < 4 for place in places)
    assert len(dark_nuclei(faint, 0.3)) == 0


def test_real_mitoses_are_found(shared_data: Path) -> None:
    """ICPR 2012 crops, which were trained on: this guards the chain, it measures nothing."""
    from tamis.proliferation.fields import _icpr

    hits = total = 0
    for field in _icpr(shared_data / "pathology" / "mitosis_icpr12")[:6]:
        path = shared_data / "pathology" / "mitosis_icpr12" / "images" / Path(field.name).name
        with open_slide(path, mpp=0.25) as slide:
            found = detect(slide)
        for x, y in field.mitoses:
            total += 1
            hits += any(np.hypot(m.x_um - x * 0.25, m.y_um - y * 0.25) < 7.5 for m in found)
    assert total >= 5 and hits >= 0.7 * total

"""pytest tests/subtitles/test_layout.py: which rows hold lines, judged by a toy network that knows the right ones."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.subtitles.detect import LineImage
from tamis.subtitles.layout import Sizes, arrange, characters, decided, overlap
from tamis.subtitles.recognise import Glance, Sighting

SCW = 30.0


def image(centre: float, left: int = 100, right: int = 300, scw: float = SCW, polarity: int = 1) -> LineImage:
    """A line whose pixels tell the toy network on which row, how large and in which polarity it was cut."""

    def cut(down: float, scale: float) -> LineImage:
        return image(centre + down * scw, left, right, scw * scale, polarity)

    def turned() -> LineImage:
        return image(centre, left, right, scw, -polarity)

    pixels = np.zeros((2, 40, 32), np.uint8)
    pixels[0, 0, :4] = *divmod(round(10 * centre), 256), round(4 * scw), polarity > 0
    half = 0.625 * scw
    box = (left, round(centre - half), right, round(centre + half))
    return LineImage(lambda: pixels, box, scw, polarity, cut, turned)


def sighting(mass: list[float]) -> Sighting:
    m = np.array(mass, np.float32)
    return Sighting(m, m, np.zeros(len(m) + 1, np.float32), np.zeros((len(m), 4), np.float32))


class Toy:
    """Sees three characters, the surer the nearer a strip is cut to one of the true rows; classes only on the very row."""

    def __init__(self, *rows: float) -> None:
        self.rows = rows

    def glance(self, strip: np.ndarray) -> Glance:
        self.glances = getattr(self, "glances", 0) + 1
        return Glance(self.seen(strip), np.zeros(0, np.float32), np.zeros(0, np.float32))

    def sight(self, strip: np.ndarray, glance: Glance | None = None) -> Sighting:
        self.sights = getattr(self, "sights", 0) + 1
        return self.seen(strip)

    def seen(self, strip: np.ndarray) -> Sighting:
        centre = (256 * int(strip[0, 0, 0]) + int(strip[0, 0, 1])) / 10
        self.off = min(abs(centre - row) for row in self.rows) / SCW
        m = np.array([max(0.05, 1 - self.off)] * 3, np.float32)
        return Sighting(
            m, m * 0.999, np.zeros(4, np.float32), np.full((3, 1), np.exp(-20 * self.off), np.float32)
        )

    def surest(self, seen: Sighting, allowed: object = None) -> np.ndarray:
        return np.log(seen.vectors[:, 0])


def rows(lines: list) -> list[float]:  # type: ignore[type-arg]
    return [(line.image.box[1] + line.image.box[3]) / 2 for line in lines]


def test_two_lines_taken_for_one_are_found() -> None:
    offered = [image(row) for row in (100, 109, 118, 127, 136, 145)]
    found = arrange([image(122, scw=60.0)], offered, Toy(102, 143))  # type: ignore[arg-type]
    assert rows(found) == pytest.approx([102, 143], abs=2)


def test_a_line_that_was_right_stays_where_it_is() -> None:
    found = arrange([image(122)], [image(113), image(131), image(140)], Toy(122))  # type: ignore[arg-type]
    assert rows(found) == [122]


def test_a_line_cut_twice_is_read_once() -> None:
    found = arrange([image(122), image(124, left=110)], [], Toy(122))  # type: ignore[arg-type]
    assert rows(found) == [122]


def test_a_short_line_beside_one_that_was_read_is_moved_to_its_rows() -> None:
    toy = Toy(100.0, 150.0)
    lower = image(150.0 + 0.4 * SCW)  # moved down by a drawing
    assert rows(arrange([image(100.0), lower], [], toy)) == pytest.approx([100, 150], abs=6)  # type: ignore[arg-type]
    assert rows(arrange([lower], [], toy)) == [162]  # type: ignore[arg-type]


def test_what_shows_no_characters_is_no_line() -> None:
    assert arrange([image(50)], [image(60)], Toy(300)) == []  # type: ignore[arg-type]


def test_one_member_looks_at_every_row_and_all_at_those_that_stay() -> None:
    toy = Toy(102, 143)
    offered = [image(row) for row in (100, 109, 118, 127, 136, 145)]
    assert len(arrange([image(122, scw=60.0)], offered, toy)) == 2  # type: ignore[arg-type]
    assert toy.sights <= 3 < toy.glances


def test_lines_side_by_side_do_not_exclude_each_other() -> None:
    assert overlap(image(100), image(110))
    assert not overlap(image(100), image(136))
    assert not overlap(image(100, right=200), image(100, left=220))


def test_undecided_centres_are_scenery() -> None:
    assert decided(sighting([0.99, 0.98, 0.02])) > 0.9
    assert decided(sighting([0.4, 0.3, 0.2])) < 0.4
    assert decided(sighting([])) == 0.0
    assert characters(sighting([1.0, 1.0, 0.5])) == 2 and characters(sighting([0.3, 0.2])) < 0


class Narrow(Toy):
    """Knows letters only when they are cut at 0.88 of their measured size."""

    def seen(self, strip: np.ndarray) -> Sighting:
        size = int(strip[0, 0, 2]) / 4
        self.off = 0.02 if abs(size / (0.88 * SCW) - 1) < 0.03 else 0.3 * abs(size / (0.88 * SCW) - 1)
        m = np.full(3, 0.95, np.float32)
        return Sighting(
            m, m * 0.999, np.zeros(4, np.float32), np.full((3, 1), np.exp(-10 * self.off), np.float32)
        )


def test_a_narrow_face_is_read_in_the_size_that_the_networks_know() -> None:
    toy = Narrow(122)
    sizes = Sizes(toy)  # type: ignore[arg-type]
    for _ in range(6):
        [line] = arrange([image(122)], [], toy, sizes)  # type: ignore[arg-type]
        assert line.image.scw == pytest.approx(0.88 * SCW)
    [other] = arrange([image(122, scw=50.0)], [], toy, sizes)  # type: ignore[arg-type]
    assert other.image.scw != pytest.approx(0.88 * 50)  # another style, too large to be known


def test_a_face_of_usual_shape_keeps_its_size() -> None:
    toy = Toy(122)
    sizes = Sizes(toy)  # type: ignore[arg-type]
    [line] = arrange([image(122)], [], toy, sizes)  # type: ignore[arg-type]
    assert line.image.scw == SCW


class Bright(Toy):
    """Knows bright letters, and reads some dark ones all the same."""

    def seen(self, strip: np.ndarray) -> Sighting:
        self.off = 0.02 if strip[0, 0, 3] else 0.2
        m = np.full(3, 0.95, np.float32)
        return Sighting(m, m * 0.999, np.zeros(4, np.float32), np.full((3, 1), np.exp(-self.off), np.float32))


def test_the_networks_tell_bright_text_that_was_taken_for_dark() -> None:
    toy = Bright(122)
    sizes = Sizes(toy)  # type: ignore[arg-type]
    for polarity in (-1, 1, -1):
        [line] = arrange([image(122, polarity=polarity)], [], toy, sizes)  # type: ignore[arg-type]
        assert line.image.polarity == 1


def test_widths_in_which_lines_were_clearly_read_are_known() -> None:
    sizes = Sizes(Toy(122))  # type: ignore[arg-type]
    assert sizes.known() == []
    arrange([image(122)], [], Toy(122), sizes)  # type: ignore[arg-type]
    assert sizes.known() == [SCW]
    doubtful = Sizes(Narrow(122))  # type: ignore[arg-type]
    arrange([image(122)], [], Narrow(122), doubtful)  # type: ignore[arg-type]
    assert doubtful.known() == []


def test_polarity_is_learnt_from_rows_that_were_offered_where_no_line_was_clear() -> None:
    class BrightRow(Toy):
        def seen(self, strip: np.ndarray) -> Sighting:
            seen = super().seen(strip)
            return (
                seen
                if strip[0, 0, 3]
                else Sighting(seen.position, seen.mass * 0.9, seen.log_space, seen.vectors * 0.9)
            )

    offered = [image(row, polarity=-1) for row in (100, 109, 118, 127, 136, 145)]
    found = arrange([image(122, scw=60.0, polarity=-1)], offered, BrightRow(100, 145))  # type: ignore[arg-type]
    assert [line.image.polarity for line in found] == [1, 1]

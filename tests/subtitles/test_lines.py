"""pytest tests/subtitles/test_lines.py: line-shaped groups of stroke pixels."""

import cv2
import numpy as np
import pytest
from drawn import EM, HEIGHT, WIDTH, ink_of

from tamis.subtitles.lines import HIGHEST, find_lines


def plane() -> np.ndarray:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def put(newborn: np.ndarray, text: str, left: int, top: int, step: int = 120) -> tuple[int, int, int, int]:
    """Edges of a text's strokes, as the operator leaves them; returns its box."""
    ink = ink_of(text)
    edges = cv2.absdiff(ink, np.roll(ink, (1, 2), (0, 1))) > 0
    part = newborn[top : top + ink.shape[0], left : left + ink.shape[1]]
    part[edges] = step
    return left, top, left + ink.shape[1], top + ink.shape[0]


def near(group, box: tuple[int, int, int, int], tolerance: int = 6) -> bool:
    return bool(np.allclose((group.left, group.top, group.right, group.bottom), box, atol=tolerance))


@pytest.mark.parametrize("text", ["字", "三个字", "一行比较长的文字在这里"])
def test_a_line_is_found_with_its_extent(text: str) -> None:
    newborn = plane()
    box = put(newborn, text, 100, 300)
    [group] = find_lines(newborn)
    assert near(group, box)
    assert group.count == np.count_nonzero(newborn)


def test_two_lines_are_two_groups() -> None:
    newborn = plane()
    upper, lower = put(newborn, "上面的一行文字", 200, 260), put(newborn, "下面一行", 240, 300)
    groups = sorted(find_lines(newborn), key=lambda g: g.top)
    assert len(groups) == 2 and near(groups[0], upper) and near(groups[1], lower)


def test_a_clause_space_does_not_split_a_line() -> None:
    newborn = plane()
    first = put(newborn, "前半句", 150, 300)
    second = put(newborn, "后半句", first[2] + EM // 2, 300)
    [group] = find_lines(newborn)
    assert near(group, (*first[:2], *second[2:]))


def test_nothing_and_scattered_noise_are_no_line() -> None:
    assert find_lines(plane()) == []
    rng = np.random.default_rng(0)
    noise = np.where(rng.random((HEIGHT, WIDTH)) < 0.01, 90, 0).astype(np.uint8)
    assert find_lines(noise) == []


def test_a_plane_smaller_than_a_cell_has_none() -> None:
    assert find_lines(np.full((5, 3), 200, np.uint8)) == []


def test_an_upright_bar_and_a_large_object_are_no_line() -> None:
    newborn = plane()
    newborn[50:250, 300:308] = 120
    cv2.circle(newborn, (150, 150), 90, 120, 3)
    assert all(group.height <= HIGHEST and group.top > 0 for group in find_lines(newborn))
    assert not any(group.height > 2 * group.width for group in find_lines(newborn))


def test_strong_strokes_are_found_amid_weak_texture() -> None:
    rng = np.random.default_rng(0)
    texture = rng.random((HEIGHT // 2, WIDTH // 2)) < 0.1
    newborn = np.where(np.kron(texture, np.ones((2, 2))) > 0, 35, 0).astype(np.uint8)
    box = put(newborn, "雪花里的字幕", 220, 290, step=170)
    assert any(near(group, box, EM // 2) for group in find_lines(newborn))


def test_the_heaviest_comes_first() -> None:
    newborn = plane()
    put(newborn, "淡淡的字", 100, 100, step=40)
    strong = put(newborn, "清楚的字", 100, 300, step=180)
    groups = find_lines(newborn)
    assert near(groups[0], strong) and groups[0].weight > groups[1].weight

"""Fields, their split, and windows in which only the nucleus tells what it is.

python -m pytest tests/proliferation/test_windows.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tamis.proliferation.augment import SOURCE_PX
from tamis.proliferation.fields import Field, read_fields, split_cases, without_black_edges
from tamis.proliferation.stain import RUIFROK, Shift, haematoxylin, macenko, normalise
from tamis.proliferation.windows import (
    COMPOSED,
    Nucleus,
    Sampler,
    filled,
    nuclei_of,
    painted_over,
    setting,
    window,
)


def field(mitoses: tuple[tuple[float, float], ...] = ((64.0, 64.0),), case: str = "a") -> Field:
    pixels = np.random.default_rng(len(case)).integers(150, 200, (128, 128, 3)).astype(np.uint8)
    for x, y in mitoses:
        pixels[int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8] = 20
    return Field(case, case, "scanner", pixels, mitoses, (), ((30.0, 64.0, 0.9), (100.0, 90.0, 0.2)))


def amibr(folder: Path, phases: tuple[str, str]) -> None:
    """Two patches of a slide, 100 px apart: a mitosis of these phases, and a metaphase with a dark place between both."""
    patches = folder / "mitosis_amibr" / "patches"
    patches.mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(patches / name), np.full((128, 128, 3), 200, np.uint8))
    folder = patches.parent
    (folder / "mitoses.csv").write_text(
        "slide,dataset,x,y,expert1_label,expert2_label,patch,scanner\n"
        f"1,D,500,500,{phases[0]},{phases[1]},a.png,S\n"
        "1,D,600,500,NMF metaphase,NMF metaphase,b.png,S\n"
        "1,E,500,500,AMF other,AMF other,c.png,S\n"  # another set's slide of the same number
    )
    (folder / "labels_in_patches.csv").write_text(
        "patch,x,y,label\na.png,64,64,mitosis\nb.png,64,64,mitosis\n"
        "a.png,94,64,hard_negative\na.png,64,100,hard_negative\n"
    )
    (folder / "mined_negatives.csv").write_text(
        "patch,x,y,slide_pct\na.png,30,64,0.9\nb.png,26,64,0.9\nb.png,100,64,0.4\n"
    )


@pytest.mark.parametrize("compact", [True, False])
def test_what_may_be_a_part_of_a_mitosis_is_no_negative(tmp_path: Path, compact: bool) -> None:
    """Where both experts name a phase with chromatin in several places: its daughters were mined as other nuclei."""
    amibr(tmp_path, ("AMF other", "NMF metaphase") if compact else ("AMF other", "NMF anaphase-telophase"))
    one, beside, _ = read_fields(tmp_path)
    everything = (one.lookalikes, one.mined, beside.mined)
    kept = ((94.0, 64.0), (64.0, 100.0)), ((30.0, 64.0, 0.9),), ((26.0, 64.0, 0.9), (100.0, 64.0, 0.4))
    if compact:
        assert everything == kept
        return
    # What an expert judged is left out only within 8 um; the mitosis 100 px off reaches into the neighbour's patch.
    assert everything == (((64.0, 100.0),), (), ((100.0, 64.0, 0.4),))
    one, beside, _ = read_fields(tmp_path, parts_too=True)
    assert (one.lookalikes, one.mined, beside.mined) == kept
    dark = nuclei_of([beside], peaks=lambda pixels: np.array([[5.0, 20.0], [110.0, 20.0]]))
    assert {(n.x, n.y) for n in dark} == {(64, 64), (26, 64), (100, 64), (110, 20)}


def test_a_window_is_mirrored_beyond_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    seen = window(pixels, 25, 20, size=128)
    assert seen.shape == (128, 128, 3)
    assert np.array_equal(seen[44:84, 39:89], pixels)
    assert np.array_equal(seen[43, 39:89], pixels[1])  # the edge itself is not repeated
    assert np.array_equal(seen[44:84, 38], pixels[:, 1])


def test_a_negative_does_not_show_the_patch_mitosis() -> None:
    one = field()
    shown = setting(one, 30, 64, 0, [(30.0, 64.0)], np.random.default_rng(0))
    assert one.pixels[60:68, 60:68].max() == 20
    assert shown.pixels[60:68, 60:68].min() > 100


def test_a_mitosis_is_cut_like_a_negative_and_keeps_itself() -> None:
    shown = setting(field(), 64, 64, 1, [(30.0, 64.0)], np.random.default_rng(0))
    assert shown.box == (34, 0, 128, 128)  # its left edge as near as the negative's: 30 px
    assert shown.pixels[60:68, 60:68].max() == 20
    changed = (shown.pixels != field().pixels).any(2)
    assert changed[:, 90:106].any() and not changed[:, :70].any()  # painted where a negative has its mitosis


def test_both_kinds_are_seen_within_the_same_reach() -> None:
    """The farthest visible pixel is 64 px away for both."""
    for label, x in ((1, 64.0), (0, 30.0)):
        box = setting(field(), x, 64, label, [(30.0, 64.0)], np.random.default_rng(1)).box
        assert x - box[0] == 30 and box[2] - x == 64


def test_painting_leaves_the_original_alone() -> None:
    pixels = field().pixels
    before = pixels.copy()
    painted_over(pixels, [(64.0, 64.0), (2.0, 2.0), (-40.0, 5.0)], [(64.0, 64.0)], np.random.default_rng(0))
    assert np.array_equal(pixels, before)


def test_batches_depend_on_their_step_alone() -> None:
    fields = [field(), field(case="bb")]
    nuclei = [Nucleus(i, 64, 64, 1) for i in range(2)] + [Nucleus(i, 30, 64, 0) for i in range(2)]
    sampler = Sampler(fields, nuclei, batch=6, seed=3)
    stream = sampler(0)
    next(stream)
    second, again = next(stream), next(sampler(1))
    assert np.array_equal(second[0], again[0]) and np.array_equal(second[1], again[1])
    assert second[0].shape == (6, 128, 128, 3) and 0 < second[1].sum() < 6


def test_real_fields_and_composed_slides_have_the_same_share_of_mitoses() -> None:
    """Else the network could tell what is drawn more often as a mitosis by where it lies."""
    composed = Field("c", "c", COMPOSED, field().pixels, ((64.0, 64.0),), (), ())
    nuclei = [Nucleus(0, 64, 64, 1), Nucleus(1, 64, 64, 1, 7.0)]
    nuclei += [Nucleus(0, 30, 64, 0, 0.1), *(Nucleus(1, 30, 64, 0) for _ in range(9))]
    sampler = Sampler([field(), composed], nuclei, batch=8, seed=0)
    of_slides = [
        sum(p for n, p in zip(some, chance, strict=True) if n.field == 1)
        for some, chance in (
            (sampler.positives, sampler.positive_chance),
            (sampler.negatives, sampler.chance),
        )
    ]
    assert np.allclose(of_slides, 0.5)


def test_a_neighbouring_mitosis_says_nothing() -> None:
    """It is painted in beside mitoses and beside others alike, where a patch has its own."""
    one, other = field(), field()
    other.pixels[56:72, 56:72] = (10, 200, 10)
    for label, x in ((1, 64.0), (0, 30.0)):
        green = 0
        for seed in range(60):
            shown = setting(
                one, x, 64, label, [(30.0, 64.0)], np.random.default_rng(seed), [(other.pixels, 64.0, 64.0)]
            )
            beside = shown.pixels[60:68, round(x) + 30 : round(x) + 38]
            green += bool((beside[..., 1] > 190).all())
        assert 8 < green < 34  # of 60: one in three


def test_a_cut_is_filled_with_another_patch() -> None:
    one, other = field(), Field("o", "a", "scanner", np.full((128, 128, 3), 77, np.uint8), (), (), ())
    shown = setting(one, 30, 64, 0, [(30.0, 64.0)], np.random.default_rng(0))
    seen = filled(shown, 30, 64, other, np.random.default_rng(0))
    half = SOURCE_PX // 2
    assert seen.shape == (SOURCE_PX, SOURCE_PX, 3)
    assert np.array_equal(seen[half, half], shown.pixels[64, 30])
    assert (seen[half, : half - 32] == 77).all() and (seen[half, half + 66 :] == 77).all()


def test_black_padding_is_cut_and_places_move_along() -> None:
    pixels = field().pixels.copy()
    pixels[:, :20] = 3
    pixels[110:] = 0
    seen, left, top = without_black_edges(pixels)
    assert (left, top) == (20, 0) and seen.shape == (110, 108, 3)
    assert without_black_edges(field().pixels)[1:] == (0, 0)


def test_no_case_is_in_two_parts(shared_data: Path) -> None:
    fields = read_fields(shared_data / "pathology")
    parts = split_cases(fields)
    assert parts == split_cases(list(reversed(fields)))
    count = {part: sum(parts[f.case] == part for f in fields) for part in ("train", "validation", "test")}
    assert count["test"] > 800 and count["validation"] > 200 and count["train"] > 1400
    lookalikes = sum(len(f.lookalikes) for f in fields if parts[f.case] == "test")
    assert lookalikes >= 20
    assert all(f.pixels.max(2).mean() > 20 for f in fields)
    assert all(
        0 <= x < f.pixels.shape[1] and 0 <= y < f.pixels.shape[0] for f in fields for x, y in f.mitoses
    )


# Stain.


def stained(amounts: np.ndarray) -> np.ndarray:
    return np.clip(246 * 10 ** -(amounts @ RUIFROK) - 1, 0, 255).astype(np.uint8)


def test_haematoxylin_measures_the_dye() -> None:
    amounts = np.zeros((3, 1, 2))
    amounts[:, 0] = [(0.0, 0.0), (0.5, 0.3), (1.0, 0.0)]
    assert np.abs(haematoxylin(stained(amounts))[:, 0] - [0, 0.5, 1.0]).max() < 0.03


def test_macenko_finds_the_dyes() -> None:
    amounts = np.random.default_rng(0).uniform(0, 1, (80, 80, 2))
    amounts[:40, :, 1] *= 0.05
    amounts[40:, :, 0] *= 0.05
    found = macenko(stained(amounts))
    assert found is not None
    true = RUIFROK / np.linalg.norm(RUIFROK, axis=1, keepdims=True)
    assert ((found * true).sum(1) > 0.98).all()
    assert macenko(np.full((50, 50, 3), 250, np.uint8)) is None
    assert normalise(np.full((9, 9, 3), 250, np.uint8)).shape == (9, 9, 3)


def test_a_neutral_shift_changes_nothing() -> None:
    pixels = stained(np.random.default_rng(0).uniform(0, 1, (20, 20, 2)))
    assert np.abs(Shift((1, 1, 1), (0, 0, 0)).apply(pixels).astype(int) - pixels).max() <= 1

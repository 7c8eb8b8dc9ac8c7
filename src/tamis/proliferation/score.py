"""One slide to its scores: tissue -> ranked regions -> mitoses -> hot spot -> mitotic score and proliferation score.

    found = score_slide("breast.svs")
    found.mitotic_score, found.per_mm2, found.interval

The mitoses come from the detector, or from anyone: `mitoses` may be a pathologist's own clicks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, WeightsError
from tamis.proliferation.features import NAMES, REGIONS, slide_features
from tamis.proliferation.grading import TUPAC, Grading, count_interval, grading
from tamis.proliferation.hotspot import HotSpot, Shape, hot_spot, spread_evenly
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import AREA_MM2, Region, rank_regions
from tamis.proliferation.svm import from_bytes
from tamis.tissue import tissue_mask
from tamis.weights import Weights, load, read

if TYPE_CHECKING:
    from tamis.slides import Slide

SHARE_TISSUE, SHARE_REGIONS = 0.01, 0.1
"""Of the whole time, until the tissue is found and the regions are ranked: what a slide of 358 mm2 takes."""
GIVEN = "given positions"
PUBLISHED_MODEL = Path(__file__).parent / "weights" / "svr.tupac16-scores.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to score, as plain values, so that they travel to worker processes."""

    preset: str = TUPAC.name
    shape: Shape = "square"
    """Of the window in which mitoses are counted."""
    regions: int = REGIONS
    """How many of the ranked regions are searched for mitoses. The whole tissue is, where it is no more than they hold
    together (2 mm2 each), and always with 0. The features are always of the first 30."""
    threshold: float | None = None
    """Least probability of a mitosis; by default the detector's operating point."""
    model: Path | None = None
    """The record that `tamis proliferation train` wrote; by default the published one."""
    detector: Path | None = None
    """The folder of another detector's weights; by default the published ones."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """A machine's value for the slide, with the limits of 95 % of its errors in cross-validation (NaN where it has none), and
    the machine's name."""

    value: float
    low: float
    high: float
    model: str


@dataclass(frozen=True, slots=True)
class SlideScore:
    """Everything found on one slide."""

    grading: Grading
    mitoses: list[Mitosis]
    hot_spot: HotSpot | None
    """None where no mitosis was found."""
    interval: tuple[float, float]
    """Of the count in the hot spot, 95 %, Poisson; see `grading.count_interval`."""
    regions: list[Region]
    tissue: tuple[NDArray[np.bool_], float]
    features: dict[str, float]
    predicted: dict[str, Predicted]
    """By task: mitotic_score, pam50_proliferation."""
    detector: dict[str, Any]
    """What found the mitoses: weights, hash, threshold; or who marked them."""
    whole: bool | None
    """Whether all the tissue was searched, and not the regions alone. None where the positions were given: what was looked at
    to find them is not known."""
    models: list[Weights]
    seconds: dict[str, float] = field(default_factory=dict)
    even: tuple[float, float, float] | None = None
    """What the hot spot would hold if the mitoses lay evenly over the searched tissue: mean, limits of 95 %. None where that
    tissue is not known."""

    @property
    def given(self) -> bool:
        """Whether the positions were given, and not found by the detector."""
        return self.detector.get("name") == GIVEN

    @property
    def count(self) -> int:
        return self.hot_spot.count if self.hot_spot else 0

    @property
    def counted_mm2(self) -> float:
        """The area of the hot spot, or all the tissue where the slide holds less."""
        return min(self.grading.area_mm2, self.tissue_mm2)

    @property
    def per_mm2(self) -> float:
        return self.count / self.counted_mm2

    @property
    def mitotic_score(self) -> int:
        return self.grading.score(self.count)

    @property
    def mitotic_score_interval(self) -> tuple[int, int]:
        """The scores at the ends of the count's interval, in whole mitoses that it holds."""
        low, high = self.interval
        return self.grading.score(math.ceil(low)), self.grading.score(math.floor(high))

    @property
    def tissue_mm2(self) -> float:
        return _area_mm2(*self.tissue)

    @property
    def searched_mm2(self) -> float:
        """Tissue inside the searched regions."""
        mask, um_per_px = self.tissue
        return _area_mm2(mask & self.searched, um_per_px)

    @property
    def per_searched_mm2(self) -> float:
        """All mitoses over all the tissue that was searched: no window is chosen for it."""
        return len(self.mitoses) / self.searched_mm2 if self.searched_mm2 else 0.0

    @property
    def searched(self) -> NDArray[np.bool_]:
        """[h, w] like the tissue mask: all of it, or pixels inside the searched regions; nothing where that is not known."""
        mask, um_per_px = self.tissue
        if self.whole is None:
            return np.zeros_like(mask)
        if self.whole:
            return mask
        inside = np.zeros_like(mask)
        for region in self.regions:
            top, left = round(region.y_um / um_per_px), round(region.x_um / um_per_px)
            bottom = round((region.y_um + region.height_um) / um_per_px)
            right = round((region.x_um + region.width_um) / um_per_px)
            inside[top:bottom, left:right] = True
        return inside


def score_slide(path: str | Path, settings: Settings = Settings(), *, mpp: float | None = None) -> SlideScore:
    """Open a slide and score it. `mpp` is its um per pixel, for a file that does not say."""
    from tamis.slides import open_slide

    with open_slide(path, mpp=mpp) as slide:
        return score(slide, settings)


def score(
    slide: Slide,
    settings: Settings = Settings(),
    mitoses: Sequence[Mitosis] | None = None,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> SlideScore:
    """Score a slide. Raises InputError where it holds no tissue, or is not an H&E slide.

    mitoses   already known, such as a pathologist's; by default the detector looks for them in the ranked regions
    progress  called with the share that is done, in [0, 1]
    """
    graded = grading(settings.preset)
    clock = _Clock()
    mask = tissue_mask(slide)
    if not mask[0].any():
        raise InputError(
            f"{slide.path}: no stained tissue was found. A slide with haematoxylin and eosin was expected; this one is "
            "blank, or too faint to tell from glass."
        )
    clock.stop("tissue")
    progress(SHARE_TISSUE)
    ranked = rank_regions(slide, mask, limit=max(settings.regions, REGIONS) if settings.regions else None)
    regions, described = ranked[: settings.regions or None], ranked[:REGIONS]
    clock.stop("regions")
    progress(SHARE_REGIONS)
    whole = None
    if mitoses is None:
        whole = settings.regions == 0 or _area_mm2(*mask) <= settings.regions * AREA_MM2
        if not whole and len(regions) < len(described):
            _refuse_features(settings)
        left = 1 - SHARE_REGIONS
        found, detector = _detected(
            slide, None if whole else regions, settings, lambda share: progress(SHARE_REGIONS + left * share)
        )
        found = [mitosis for mitosis in found if _on_tissue(mitosis, mask)]
    else:
        found, detector = list(mitoses), {"name": GIVEN}
        if settings.threshold is not None:
            found = [m for m in found if not m.probability < settings.threshold]  # what states none stays
    clock.stop("mitoses")
    spot = hot_spot(found, graded.area_mm2, settings.shape)
    spot = spot and spot.on_slide(slide.size_um)
    values = dict(zip(NAMES, slide_features(found, described).tolist(), strict=True))
    count = spot.count if spot else 0
    predicted, models = _predict(values | _own(graded, count, found), settings.model)
    clock.stop("score")
    scored = SlideScore(
        graded, found, spot, count_interval(count), regions, mask, values, predicted, detector, whole, models, clock.seconds
    )  # fmt: skip
    if whole is None:
        return scored
    searched = mask[0] & scored.searched
    even = spread_evenly(len(found), searched, mask[1], graded.area_mm2)
    return replace(scored, even=even)


def _area_mm2(mask: NDArray[np.bool_], um_per_px: float) -> float:
    return float(mask.sum()) * (um_per_px / 1000) ** 2


def _on_tissue(mitosis: Mitosis, mask: tuple[NDArray[np.bool_], float]) -> bool:
    """Whether there is tissue within 24 um: ink and dust beside it are no mitoses, a cell at its edge may be one."""
    tissue, um_per_px = mask
    row, column, reach = int(mitosis.y_um / um_per_px), int(mitosis.x_um / um_per_px), round(24 / um_per_px)
    return bool(
        tissue[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1].any()
    )


def _own(graded: Grading, count: int, found: list[Mitosis]) -> dict[str, float]:
    """What a model may use beside the 21 features."""
    in_2_mm2 = hot_spot(found, TUPAC.area_mm2)
    return {
        "mitotic_score": float(TUPAC.score(in_2_mm2.count if in_2_mm2 else 0)),
        "hot_spot_per_mm2": count / graded.area_mm2,
    }


def _detected(
    slide: Slide,
    regions: list[Region] | None,
    settings: Settings,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[list[Mitosis], dict[str, Any]]:
    from tamis.proliferation import detect

    folder = settings.detector or detect.FOLDER
    network, candidates = (load(folder / f"{name}.json") for name in (detect.NETWORK, detect.CANDIDATES))
    if settings.detector is None:
        detector = detect.published_detector()  # kept between slides
    else:
        detector = detect.Detector.published(folder=folder)
    effort = detect.Effort()
    # A score is a slide's, however small the slide: the threshold of fields that somebody chose is too low for it.
    found = detect.detect(
        slide,
        regions,
        threshold=settings.threshold,
        as_slide=True,
        detector=detector,
        effort=effort,
        progress=progress,
    )
    return found, {
        "name": network.name,
        "sha256": network.sha256,
        "licence": network.licence,
        "candidates": candidates.name,
        "candidates_sha256": candidates.sha256,
        "threshold": round(effort.threshold, 4),
        "nuclei": effort.nuclei,
        "windows": effort.windows,
        "share_of_pixels_seen": round(effort.seen_px / max(1, effort.searched_px), 4),
        "seconds_reading": round(effort.reading_s, 3),
        "seconds_candidates": round(effort.candidates_s, 3),
        "seconds_network": round(effort.network_s, 3),
    }


def _refuse_features(settings: Settings) -> None:
    """Raise InputError for a model that asks for numbers of regions that are not searched: there they would be too small."""
    path = settings.model or PUBLISHED_MODEL
    if path.exists() and set(NAMES) & set(load(path).preprocessing.get("features", [])):
        raise InputError(
            f"{path} describes a slide by its first {REGIONS} regions, and {settings.regions} are to be searched: give --regions "
            f"{REGIONS} or more, or leave it out."
        )


def _predict(values: dict[str, float], model: Path | None) -> tuple[dict[str, Predicted], list[Weights]]:
    """What the support vector machines say; without a published set, nothing."""
    path = model or PUBLISHED_MODEL
    if model is None and not path.exists():
        return {}, []
    weights = load(path)
    names = list(weights.preprocessing.get("features", []))
    if unknown := [name for name in names if name not in values]:
        raise WeightsError(
            f"{path} asks for features that this version does not compute: {', '.join(unknown)}."
        )
    row = np.array([values[name] for name in names])
    predicted = {}
    for task, machine in sorted(from_bytes(read(weights)).items()):
        value = float(machine.predict(row))
        low, high = machine.interval(value)
        predicted[task] = Predicted(value, low, high, weights.name)
    return predicted, [weights]


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = round(now - self._last, 3)
        self._last = now

"""Slide -> mitoses: dark nuclei, the sieves that rank them, the network on the best, suppression within 7.5 um.

    with open_slide("breast.svs") as slide:
        mitoses = detect(slide, regions)

The slide is read in blocks at 0.25 um/px with a margin, so that memory does not grow with it and every nucleus is seen
whole and once. NumPy, OpenCV and ONNX Runtime only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tamis import weights
from tamis.proliferation.candidates import CandidateScorer
from tamis.proliferation.fields import without_black_edges
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import Region
from tamis.proliferation.windows import WINDOW_PX, window
from tamis.slides import Slide, refuse_fluorescence, tissue_mask

FOLDER = Path(__file__).parent / "weights"
NETWORK, CANDIDATES = "mitosis.lite0", "mitosis.candidates"
UM_PER_PX = 0.25
SUPPRESSION_UM = 7.5  # TUPAC16's distance for a hit: 30 px at 0.25 um/px
BLOCK_PX = 1024
SMALL_MM2 = 4.0  # a picture this small is searched whole: its tissue mask could only lose something
THOROUGH_MM2 = (
    0.3  # in a picture this small the network looks at nearly every dark nucleus: it costs a second
)
BATCH = 32
HOPELESS = 0.1  # a window this unlikely at first sight is not looked at mirrored


@dataclass
class Effort:
    """What a detection cost; `detect` adds to it."""

    searched_px: int = 0
    """Pixels at 0.25 um/px that were read and searched for dark nuclei, margins not counted."""
    seen_px: int = 0
    """Pixels of `searched_px` that some window of the network covered."""
    nuclei: int = 0
    windows: int = 0
    reading_s: float = 0.0
    candidates_s: float = 0.0
    network_s: float = 0.0
    blocks: int = field(default=0, repr=False)


class Detector:
    """The published network and sieves, or those given. One per process and thread."""

    def __init__(
        self,
        network: bytes,
        scorer: CandidateScorer,
        threshold: float,
        least_candidate: float,
        thorough_candidate: float = -4.0,
        *,
        field_threshold: float | None = None,
        threads: int = 1,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self.scorer = scorer
        self.threshold = threshold
        """Probability from which a nucleus counts as a mitosis; fixed on validation cases."""
        self.field_threshold = threshold if field_threshold is None else field_threshold
        """The same in a picture of at most THOROUGH_MM2: somebody chose it, and there is less in it to be mistaken."""
        self.least_candidate = least_candidate
        """Log-odds of the last sieve below which the network does not look."""
        self.thorough_candidate = thorough_candidate
        """The same in a picture of at most THOROUGH_MM2."""

    @classmethod
    def published(cls, *, folder: Path = FOLDER, threads: int = 1) -> Detector:
        """Of the records in `folder`."""
        network = weights.load(folder / f"{NETWORK}.json")
        candidates = weights.load(folder / f"{CANDIDATES}.json")
        return cls(
            weights.read(network),
            CandidateScorer.load(weights.read(candidates)),
            network.operating_point["threshold"],
            candidates.operating_point["least_log_odds"],
            candidates.operating_point["thorough_log_odds"],
            field_threshold=network.operating_point.get("field_threshold"),
            threads=threads,
        )

    def probabilities(self, windows: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[n, 128, 128, 3] -> [n]: the mean over a window and its mirror images (left-right, up-down, both).

        Where the window itself has less than HOPELESS, that stands.
        """
        seen = self._once(windows)
        hopeful = np.flatnonzero(seen >= HOPELESS)
        some = windows[hopeful]
        for flipped in (some[:, :, ::-1], some[:, ::-1], some[:, ::-1, ::-1]):
            seen[hopeful] += self._once(flipped)
        seen[hopeful] /= 4
        return seen

    def _once(self, windows: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen = np.zeros(len(windows))
        for start in range(0, len(windows), BATCH):
            some = np.ascontiguousarray(windows[start : start + BATCH])
            (out,) = self.session.run(None, {"pixels": some})
            seen[start : start + len(some)] = out[:, 0, 0]
        return seen

    def in_picture(
        self, pixels: NDArray[np.uint8], *, least: float | None = None, effort: Effort | None = None
    ) -> list[tuple[float, float, float]]:
        """(x_px, y_px, probability) of every candidate of a picture at 0.25 um/px, not yet suppressed or cut."""
        effort = effort or Effort()
        started = time.perf_counter()
        pixels, left, top = without_black_edges(pixels)
        places, chances, nuclei = self.scorer.candidates(pixels)
        effort.nuclei += nuclei
        places = places[chances >= (self.least_candidate if least is None else least)]
        effort.candidates_s += time.perf_counter() - started
        started = time.perf_counter()
        found: list[tuple[float, float, float]] = []
        if len(places):
            windows = np.stack([window(pixels, x, y) for x, y in places])
            scores = self.probabilities(windows)
            found = [
                (float(x) + left, float(y) + top, float(p)) for (x, y), p in zip(places, scores, strict=True)
            ]
            covered = np.zeros(pixels.shape[:2], bool)
            half = WINDOW_PX // 2
            for x, y in places.astype(int):
                covered[max(0, y - half) : y + half, max(0, x - half) : x + half] = True
            effort.seen_px += int(covered.sum())
        effort.windows += len(places)
        effort.network_s += time.perf_counter() - started
        return found


@cache
def published_detector() -> Detector:
    return Detector.published()


def detect(
    slide: Slide,
    regions: Sequence[Region] | None = None,
    *,
    threshold: float | None = None,
    detector: Detector | None = None,
    effort: Effort | None = None,
) -> list[Mitosis]:
    """Mitoses of the regions, or of all tissue, likeliest first.

    threshold  least probability; by default the network's operating point, of a slide or of a field

    Raises InputError for a fluorescence slide.
    """
    detector = detector or published_detector()
    effort = effort or Effort()
    small = math.prod(slide.size_um) <= THOROUGH_MM2 * 1e6
    if threshold is None:
        threshold = detector.field_threshold if small else detector.threshold
    least = detector.thorough_candidate if small else detector.least_candidate
    found: list[Mitosis] = []
    for x_um, y_um, width_px, height_px in _blocks(slide, regions):
        started = time.perf_counter()
        margin = WINDOW_PX // 2
        slide_width, slide_height = (side / UM_PER_PX for side in slide.size_um)
        x, y = x_um / UM_PER_PX, y_um / UM_PER_PX
        # Clipped to the slide: beyond its edge windows are mirrored, as in training, and not white.
        left, top = max(0.0, x - margin), max(0.0, y - margin)
        right = min(math.ceil(slide_width - 1e-6), x + width_px + margin)
        bottom = min(math.ceil(slide_height - 1e-6), y + height_px + margin)
        size = max(1, round(right - left)), max(1, round(bottom - top))
        pixels = slide.read_region(left * UM_PER_PX, top * UM_PER_PX, *size, UM_PER_PX)
        effort.reading_s += time.perf_counter() - started
        effort.searched_px += width_px * height_px
        effort.blocks += 1
        for column, row, probability in detector.in_picture(pixels, least=least, effort=effort):
            centre_x, centre_y = left + column + 0.5, top + row + 0.5
            inside = x <= centre_x < x + width_px and y <= centre_y < y + height_px
            if inside and probability >= threshold:
                found.append(Mitosis(centre_x * UM_PER_PX, centre_y * UM_PER_PX, probability))
    return suppress(found)


def suppress(mitoses: Sequence[Mitosis], radius_um: float = SUPPRESSION_UM) -> list[Mitosis]:
    """Greedily, the likeliest first: what lies within `radius_um` of one already kept is the same figure."""
    kept: list[Mitosis] = []
    cells: dict[tuple[int, int], list[Mitosis]] = {}
    for mitosis in sorted(mitoses, key=lambda m: (-m.probability, m.y_um, m.x_um)):
        i, j = int(mitosis.x_um // radius_um), int(mitosis.y_um // radius_um)
        near = (other for di in (-1, 0, 1) for dj in (-1, 0, 1) for other in cells.get((i + di, j + dj), ()))
        if all(math.hypot(mitosis.x_um - o.x_um, mitosis.y_um - o.y_um) > radius_um for o in near):
            kept.append(mitosis)
            cells.setdefault((i, j), []).append(mitosis)
    return kept


def _blocks(slide: Slide, regions: Sequence[Region] | None) -> Iterator[tuple[float, float, int, int]]:
    """(x_um, y_um, width_px, height_px) of blocks that cover the regions once, or the tissue."""
    width_um, height_um = slide.size_um
    side_um = BLOCK_PX * UM_PER_PX
    if regions is not None:
        refuse_fluorescence(slide)
        yield from _unique_blocks(regions)
        return
    if width_um * height_um <= SMALL_MM2 * 1e6:
        refuse_fluorescence(slide)
        mask = None
    else:
        mask = tissue_mask(slide)
    for top in range(math.ceil(height_um / side_um)):
        for left in range(math.ceil(width_um / side_um)):
            x, y = left * side_um, top * side_um
            if mask is not None:
                rows = slice(int(y / mask[1]), math.ceil((y + side_um) / mask[1]))
                columns = slice(int(x / mask[1]), math.ceil((x + side_um) / mask[1]))
                if not mask[0][rows, columns].any():
                    continue
            size = min(side_um, width_um - x), min(side_um, height_um - y)
            yield x, y, max(1, math.ceil(size[0] / UM_PER_PX)), max(1, math.ceil(size[1] / UM_PER_PX))


def _unique_blocks(regions: Sequence[Region]) -> Iterator[tuple[float, float, int, int]]:
    """Rectangles of at most BLOCK_PX inside the regions; where regions overlap, suppression merges what is seen twice."""
    for region in regions:
        width, height = (round(side / UM_PER_PX) for side in (region.width_um, region.height_um))
        for top in range(0, height, BLOCK_PX):
            for left in range(0, width, BLOCK_PX):
                yield (
                    region.x_um + left * UM_PER_PX,
                    region.y_um + top * UM_PER_PX,
                    min(BLOCK_PX, width - left),
                    min(BLOCK_PX, height - top),
                )

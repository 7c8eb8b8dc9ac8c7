"""Slide -> mitoses: dark nuclei, the sieves that rank them, the network on the best, suppression within 7.5 um.

    with open_slide("breast.svs") as slide:
        mitoses = detect(slide, regions)

The slide is read in blocks at 0.25 um/px with a margin, so that memory does not grow with it and every nucleus is seen
whole and once. Of every CHUNK_MM2 of stained tissue the network sees the likeliest candidates, so many per mm2: what a sieve says
of a faint slide is lower throughout, and its order is not. NumPy, OpenCV and ONNX Runtime only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tamis import weights
from tamis.errors import InputError
from tamis.proliferation.candidates import CandidateScorer
from tamis.proliferation.fields import without_black_edges
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import Region
from tamis.proliferation.stain import optical_density
from tamis.proliferation.windows import WINDOW_PX, window
from tamis.slides import Slide, refuse_fluorescence, tissue_mask

FOLDER = Path(__file__).parent / "weights"
NETWORK, CANDIDATES = "mitosis.lite0", "mitosis.candidates"
UM_PER_PX = 0.25
SUPPRESSION_UM = 7.5  # TUPAC16's distance for a hit: 30 px at 0.25 um/px
BLOCK_PX = 1024
SMALL_MM2 = 4.0  # a picture this small is searched whole: its tissue mask could only lose something
SPARING_MM2 = (
    0.3  # in a larger picture the network does not see all that the sieve leaves: there it would cost
)
FIELD_MM2, SLIDE_MM2 = 0.005, 0.06
"""Up to the first (280 px) a picture was cut out around something and has the threshold of fields; from the second (1,000 px)
on mitoses are as rare in it as on a slide. Between them it goes with the logarithm of the area. Below the second the network
looks at nearly every dark nucleus."""
CHUNK_MM2, MOST_WAITING = 16.0, 4000  # the network looks after so much tissue, or so many windows: 200 MB
SURE = 2.5  # log-odds of a candidate that is looked at beyond the budget, as in a hot spot,
MOST_SURE, SURE_ANYWHERE = 1.3, 200
"""but no more than so many times the budget, or so many in the first tissue looked at, which may be all of a biopsy. Some blue
stains lift the sieve's numbers as faint ones lower them: a quarter of two slides was looked at."""
CUT_PX = 8
"""Closer to the picture's edge a nucleus is cut, and mirrored it looks like a metaphase: most false ones in fields were these."""
STAINED = 0.065  # mean decimal optical density
CELL_PX = 16  # what the network saw is counted in squares of this side
COARSEST_UM_PER_PX = 1.1  # a nucleus is then 7 px wide: 10x is beyond what shows chromosomes
BATCH = 32
HOPELESS = 0.1  # a window this unlikely at first sight is not looked at mirrored


@dataclass
class Effort:
    """What a detection cost; `detect` adds to it."""

    searched_px: int = 0
    """Pixels at 0.25 um/px that were read and searched for dark nuclei, margins not counted."""
    cells: set[tuple[int, int]] = field(default_factory=set, repr=False)
    nuclei: int = 0
    windows: int = 0
    reading_s: float = 0.0
    candidates_s: float = 0.0
    network_s: float = 0.0
    blocks: int = field(default=0, repr=False)
    threshold: float = math.nan
    """Of the last slide."""

    @property
    def seen_px(self) -> int:
        """Pixels that some window of the network covered, of the slides searched so far."""
        return self.earlier_px + len(self.cells) * CELL_PX**2

    earlier_px: int = 0

    def next_slide(self) -> None:
        self.earlier_px, self.cells = self.seen_px, set()


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
        windows_per_mm2: float = math.inf,
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
        """The same in a picture of at most FIELD_MM2: somebody chose it, and there is less in it to be mistaken."""
        self.windows_per_mm2 = windows_per_mm2
        """How many of the candidates the network sees, of a mm2 of stained tissue, on average over CHUNK_MM2."""
        self.least_candidate = least_candidate
        """Log-odds of the last sieve below which the network does not look."""
        self.thorough_candidate = thorough_candidate
        """The same in a picture of less than SLIDE_MM2."""

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
            windows_per_mm2=candidates.operating_point.get("windows_per_mm2", math.inf),
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

    def threshold_of(self, area_mm2: float) -> float:
        """The operating point of a picture or slide of this size."""
        share = math.log(max(area_mm2, 1e-9) / FIELD_MM2) / math.log(SLIDE_MM2 / FIELD_MM2)
        return self.field_threshold + (self.threshold - self.field_threshold) * min(1.0, max(0.0, share))

    def in_picture(
        self, pixels: NDArray[np.uint8], *, least: float | None = None
    ) -> list[tuple[float, float, float]]:
        """(x_px, y_px, probability) of every candidate of a picture at 0.25 um/px, not yet suppressed or cut."""
        bound = self.least_candidate if least is None else least
        (places, _, windows), _ = candidates_of(self.scorer, pixels, bound, (True,) * 4)
        if not len(places):
            return []
        scores = self.probabilities(windows)
        return [(float(x), float(y), float(p)) for (x, y), p in zip(places, scores, strict=True)]


def candidates_of(
    scorer: CandidateScorer,
    pixels: NDArray[np.uint8],
    least: float,
    ends: tuple[bool, bool, bool, bool],
    inside: tuple[float, float, float, float] = (-math.inf, -math.inf, math.inf, math.inf),
    sparing: bool = False,
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.uint8]], int]:
    """Candidates of a block: places [n, 2] in px, log-odds [n] from `least` on, windows [n, 128, 128, 3]; dark nuclei in all.

    ends    whether the picture ends at the block's left, top, right and bottom side
    inside  left, top, right, bottom in px: centres elsewhere are another block's
    sparing see `CandidateScorer.candidates`
    """
    seen, left, top = without_black_edges(pixels)
    height, width = seen.shape[:2]
    # Where padding was cut off, the picture ends as well.
    sides = (
        ends[0] or left > 0,
        ends[1] or top > 0,
        ends[2] or left + width < pixels.shape[1],
        ends[3] or top + height < pixels.shape[0],
    )

    def within(places: NDArray[np.float64]) -> NDArray[np.bool_]:
        x, y = places[:, 0], places[:, 1]
        away = np.stack([x, y, width - 1 - x, height - 1 - y])[np.array(sides)].min(0, initial=np.inf)
        centre_x, centre_y = x + left + 0.5, y + top + 0.5
        here = (centre_x >= inside[0]) & (centre_y >= inside[1])
        return here & (centre_x < inside[2]) & (centre_y < inside[3]) & (away >= CUT_PX)

    places, odds, nuclei = scorer.candidates(seen, within=within, sparing=sparing)
    places, odds = places[odds >= least], odds[odds >= least]
    windows = np.stack([window(seen, u, v) for u, v in places]) if len(places) else _NO_WINDOWS
    return (places + np.array([left, top]), odds, windows), nuclei


_NO_WINDOWS = np.empty((0, WINDOW_PX, WINDOW_PX, 3), np.uint8)


@cache
def published_detector() -> Detector:
    return Detector.published()


def detect(
    slide: Slide,
    regions: Sequence[Region] | None = None,
    *,
    threshold: float | None = None,
    as_slide: bool = False,
    detector: Detector | None = None,
    effort: Effort | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Mitosis]:
    """Mitoses of the regions, or of all tissue, likeliest first.

    threshold  least probability; by default the network's operating point, of a slide or of a field
    as_slide   the operating point of a slide however small the picture is
    progress   called with the share that was looked at, in [0, 1]

    Raises InputError for a fluorescence slide, and for one that is too coarse.
    """
    if slide.um_per_px > COARSEST_UM_PER_PX:
        raise InputError(
            f"{slide.path} has {slide.um_per_px:g} um per pixel, at which no mitosis can be told: "
            "expected 0.25 (40x) to 0.5 (20x)."
        )
    detector = detector or published_detector()
    effort = effort or Effort()
    effort.next_slide()
    area_mm2 = math.prod(slide.size_um) / 1e6
    if threshold is None:
        threshold = detector.threshold if as_slide else detector.threshold_of(area_mm2)
    least = detector.thorough_candidate if area_mm2 < SLIDE_MM2 else detector.least_candidate
    allowed = math.inf if area_mm2 <= SPARING_MM2 else detector.windows_per_mm2
    chunk = _Chunk(detector, allowed, threshold, effort)
    effort.threshold = threshold
    blocks = list(_blocks(slide, regions))
    for done, (x_um, y_um, width_px, height_px) in enumerate(blocks):
        progress(done / len(blocks))
        started = time.perf_counter()
        margin = WINDOW_PX // 2
        slide_width, slide_height = (math.ceil(side / UM_PER_PX - 1e-6) for side in slide.size_um)
        x, y = x_um / UM_PER_PX, y_um / UM_PER_PX
        # Clipped to the slide: beyond its edge windows are mirrored, as in training, and not white.
        left, top = max(0.0, x - margin), max(0.0, y - margin)
        right, bottom = min(slide_width, x + width_px + margin), min(slide_height, y + height_px + margin)
        size = max(1, round(right - left)), max(1, round(bottom - top))
        pixels = slide.read_region(left * UM_PER_PX, top * UM_PER_PX, *size, UM_PER_PX)
        effort.reading_s += time.perf_counter() - started
        effort.searched_px += width_px * height_px
        effort.blocks += 1
        started = time.perf_counter()
        ends = left <= 0, top <= 0, right >= slide_width, bottom >= slide_height
        inside = x - left, y - top, x - left + width_px, y - top + height_px
        (places, odds, windows), nuclei = candidates_of(
            detector.scorer, pixels, least, ends, inside, sparing=not math.isinf(allowed)
        )
        effort.nuclei += nuclei
        stained = float((optical_density(pixels[::8, ::8]).mean(2) > STAINED).mean())
        effort.candidates_s += time.perf_counter() - started
        chunk.add(places + np.array([left, top]), odds, windows, stained * width_px * height_px)
    chunk.look()
    return suppress(chunk.found)


class _Chunk:
    """Candidates of some tissue, until so much of it is there that the likeliest can be chosen."""

    def __init__(self, detector: Detector, per_mm2: float, threshold: float, effort: Effort) -> None:
        self.detector, self.per_mm2, self.threshold, self.effort = detector, per_mm2, threshold, effort
        self.found: list[Mitosis] = []
        self.waiting: list[tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.uint8]]] = []
        self.mm2, self.first = 0.0, True

    def add(
        self,
        places: NDArray[np.float64],
        odds: NDArray[np.float32],
        windows: NDArray[np.uint8],
        stained_px: float,
    ) -> None:
        self.mm2 += stained_px * UM_PER_PX**2 / 1e6
        self.waiting.append((places, odds, windows))
        waiting = sum(len(o) for _, o, _ in self.waiting)
        if self.mm2 >= CHUNK_MM2 or waiting >= MOST_WAITING or math.isinf(self.per_mm2):
            self.look()

    def look(self) -> None:
        """The network on the likeliest."""
        started = time.perf_counter()
        odds = np.concatenate([np.empty(0, np.float32), *(o for _, o, _ in self.waiting)])
        allowed = len(odds) if math.isinf(self.per_mm2) else math.ceil(self.per_mm2 * self.mm2)
        if allowed < len(odds):
            most = max(math.ceil(allowed * MOST_SURE), SURE_ANYWHERE if self.first else 0)
            falling = -np.sort(-odds)
            sure = min(int((falling > SURE).sum()), most)
            bound = float(falling[max(allowed, sure)]) if max(allowed, sure) < len(odds) else -math.inf
            chosen = [o > bound for _, o, _ in self.waiting]
        else:
            chosen = [np.ones(len(o), bool) for _, o, _ in self.waiting]
        for (places, _, windows), some in zip(self.waiting, chosen, strict=True):
            if not some.any():
                continue
            self.effort.windows += int(some.sum())
            for (x, y), p in zip(places[some], self.detector.probabilities(windows[some]), strict=True):
                self.effort.cells |= _cells(x, y)
                if p >= self.threshold:
                    self.found.append(Mitosis((x + 0.5) * UM_PER_PX, (y + 0.5) * UM_PER_PX, float(p)))
        self.waiting, self.mm2, self.first = [], 0.0, False
        self.effort.network_s += time.perf_counter() - started


def _cells(x: float, y: float) -> set[tuple[int, int]]:
    """Squares of CELL_PX that the window around (x, y) covers, to the nearest."""
    left, top = round((x - WINDOW_PX / 2) / CELL_PX), round((y - WINDOW_PX / 2) / CELL_PX)
    side = WINDOW_PX // CELL_PX
    return {(left + i, top + j) for i in range(side) for j in range(side)}


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

"""Slides with a known truth: real pixels, synthetic layout. A test instrument, and no evidence about patients.

    tamis proliferation compose -o composed.tif --seed 7 --size 20000

Tissue is laid out as random blobs on glass and filled with real breast tumour fields (`textures.py`). Into it go discs of
12 um radius cut from the AMi-Br fields of chosen cases: mitoses, expert look-alikes and other dark nuclei, all cut, restained
and blended alike, the neighbourhood of each with it and the seam away from the nucleus, so that a seam means nothing. The
slide has one stain, that of a ground or of a case; each case's own is estimated from all its fields.

How many follows tables. A row of the 500 TUPAC16 training slides gives the mitotic score, and a count for it is planted in one
2 mm2 square, fewer elsewhere. Look-alikes are as many as in the 150 labelled breast fields of MIDOG++ (2 mm2 each, chosen as hot
spots): 7.2 + 0.87 for each mitosis, and elsewhere fewer in the same proportion as mitoses; but AMi-Br has only 23 that lie whole
inside their patches, 3 of them in validation cases and 9 in test cases, and no nucleus is planted more than REPEATS times on a
slide, or copies of one nucleus would decide the figures. A large slide has fewer look-alikes than a real one.

Everything is a function of the seed and the place, so any size is written in bounded memory.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from tamis.proliferation.fields import UM_PER_PX, Field, part_of, read_fields
from tamis.proliferation.hotspot import hot_spot
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.stain import Stain, repainted, stain_of
from tamis.proliferation.textures import COARSE_PX, GLASS, Ground, grounds_of
from tamis.proliferation.windows import setting
from tamis.writing import replacing, reserve

Pixels = NDArray[np.uint8]
Kind = Literal["mitosis", "expert", "mined"]
TILE = 256
DISC_PX, RADIUS_PX, FEATHER_PX = 112, 50, 14
WHOLE_PX = 12.0  # a label this close to the edge of its patch is half a nucleus, and is not planted
HOT_MM2 = 2.0
COUNTS = {1: (0, 5), 2: (6, 10), 3: (11, 40)}  # mitoses in 2 mm2 by TUPAC16's score
ELSEWHERE = 0.35  # density outside the hot square over the density inside
LOOKALIKES = 7.2, 0.87  # in 2 mm2: at least, and per mitosis
MINED_PER_MM2 = 40
REPEATS = 2
LEAST_FIELDS = 3  # of a case, for its stain
LEVELS = (1, 4, 16)
Source = tuple[Field, float, float]


@dataclass(frozen=True, slots=True)
class Planted:
    """An object of the composed slide; its centre in um."""

    x_um: float
    y_um: float
    kind: Kind
    case: str


class Composer:
    """One composed slide: what is where, and its pixels."""

    def __init__(
        self,
        data: Path,
        *,
        size_px: int,
        seed: int,
        part: str = "test",
        mitoses: int | None = None,
        repeats: int = REPEATS,
    ) -> None:
        """`mitoses` replaces the count of the TUPAC16 row, for training; `repeats` 0 allows any."""
        self.asked, self.repeats = mitoses, repeats
        self.size_px, self.seed, self.part = size_px, seed, part
        generator = np.random.default_rng((seed, 1))
        fields = _patches_of(data, part)
        textures = grounds_of(data / "breast_ucsb" / "images", part)
        self.stains = stains_of_cases(fields)
        fields = [field for field in fields if field.case in self.stains]
        own = [stain for texture in textures if (stain := stain_of(texture))]
        known = own if generator.random() < 0.5 or not self.stains else list(self.stains.values())
        self.stain = known[generator.integers(len(known))]
        self.row = _tupac_row(data, generator)
        self.ground = Ground(textures, self.stain, size_px=size_px, seed=seed)
        self._negatives = [(x, y) for f in fields for x, y, _ in f.mined]
        self.objects, self._sources = self._plant(fields, generator)
        self._places = np.array([(o.x_um, o.y_um) for o in self.objects]).reshape(-1, 2) / UM_PER_PX

    def truth(self) -> dict[str, Any]:
        """What was planted, with the TUPAC16 row it follows."""
        mitoses = [Mitosis(o.x_um, o.y_um, 1.0) for o in self.objects if o.kind == "mitosis"]
        spot = hot_spot(mitoses, HOT_MM2)
        return {
            "kind": "composed: real pixels, synthetic layout",
            "seed": self.seed,
            "size_px": self.size_px,
            "um_per_px": UM_PER_PX,
            "cases": self.part,
            "tupac_row": self.row["slide"],
            "mitotic_score": int(self.row["mitotic_score"]),
            "pam50_proliferation": float(self.row["pam50_proliferation"]),
            "hot_spot_count": spot.count if spot else 0,
            "objects": [asdict(o) for o in self.objects],
        }

    def source(self, index: int) -> Source:
        """The field that an object was cut from, and where in it."""
        return self._sources[index]

    def pixels(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Any rectangle, [height, width, 3]; the same wherever its borders lie."""
        out = self.ground.pixels(left, top, width, height)
        middle = self._places - (left + width / 2, top + height / 2)
        near = np.abs(middle) < (width / 2 + DISC_PX, height / 2 + DISC_PX)
        for i in np.flatnonzero(near.all(1)):
            disc, x, y = self._disc(int(i))
            a, b = max(left, x), max(top, y)
            c, d = min(left + width, x + DISC_PX), min(top + height, y + DISC_PX)
            if c > a and d > b:
                out[b - top : d - top, a - left : c - left] = disc[b - y : d - y, a - x : c - x]
        return out

    def _plant(
        self, fields: Sequence[Field], generator: np.random.Generator
    ) -> tuple[list[Planted], list[Source]]:
        low, high = COUNTS[int(self.row["mitotic_score"])]
        wanted = int(min(high, low + generator.geometric(0.12) - 1))
        if self.asked is not None:
            wanted = high = self.asked
        side = min(self.size_px, round(math.sqrt(HOT_MM2) * 1000 / UM_PER_PX))
        spots = [tuple(generator.integers(0, max(1, self.size_px - side), 2)) for _ in range(40)]
        hot = max(spots, key=lambda s: self.ground.tissue_share(int(s[0]), int(s[1]), side))
        inside_mm2 = (side * UM_PER_PX / 1000) ** 2
        area = (self.size_px / side) ** 2 - 1
        alike = (LOOKALIKES[0] + LOOKALIKES[1] * wanted * HOT_MM2 / inside_mm2) * inside_mm2 / HOT_MM2
        amounts: list[tuple[Kind, bool, int]] = [
            ("mitosis", True, wanted),
            ("mitosis", False, int(generator.poisson(max(0.0, wanted * ELSEWHERE * area)))),
            ("expert", True, int(generator.poisson(alike))),
            ("expert", False, int(generator.poisson(max(0.0, alike * ELSEWHERE * area)))),
            ("mined", False, round(MINED_PER_MM2 * (self.size_px * UM_PER_PX / 1000) ** 2)),
        ]
        sources: dict[Kind, list[Source]] = {
            "mitosis": [(f, x, y) for f in fields for x, y in f.mitoses if _whole(f, x, y)],
            "expert": [(f, x, y) for f in fields for x, y in f.lookalikes if _whole(f, x, y)],
            "mined": [(f, x, y) for f in fields for x, y, rank in f.mined if rank >= 0.4],
        }
        objects: list[Planted] = []
        taken: list[Source] = []
        places: list[tuple[int, int]] = []
        spent: Counter[tuple[Kind, int]] = Counter()
        for kind, inside, amount in amounts:
            for _ in range(amount if sources[kind] else 0):
                area_of = (int(hot[0]), int(hot[1]), side) if inside else (0, 0, self.size_px)
                place = self._free_place(area_of, places, generator)
                if place is None:
                    continue
                which = self._unspent(kind, len(sources[kind]), spent, generator)
                if which is None:
                    continue
                field, x, y = sources[kind][which]
                planted = Planted(place[0] * UM_PER_PX, place[1] * UM_PER_PX, kind, field.case)
                if kind == "mitosis" and not inside and self._too_hot([*objects, planted], high):
                    continue
                spent[kind, which] += 1
                objects.append(planted)
                places.append(place)
                taken.append((field, x, y))
        return objects, taken

    def _unspent(
        self, kind: Kind, count: int, spent: Counter[tuple[Kind, int]], generator: np.random.Generator
    ) -> int | None:
        """One of `count` sources that is not yet planted as often as it may be."""
        for _ in range(60):
            which = int(generator.integers(count))
            if not self.repeats or spent[kind, which] < self.repeats:
                return which
        return None

    def _too_hot(self, objects: Sequence[Planted], high: int) -> bool:
        """Some window would hold more than the row's score allows."""
        spot = hot_spot([Mitosis(o.x_um, o.y_um, 1.0) for o in objects if o.kind == "mitosis"], HOT_MM2)
        return spot is not None and spot.count > high

    def _free_place(
        self, area: tuple[int, int, int], taken: Sequence[tuple[int, int]], generator: np.random.Generator
    ) -> tuple[int, int] | None:
        left, top, side = area
        edge = DISC_PX
        known = np.array(taken).reshape(-1, 2)
        for _ in range(200):
            x = int(generator.integers(max(edge, left), max(edge + 1, min(self.size_px - edge, left + side))))
            y = int(generator.integers(max(edge, top), max(edge + 1, min(self.size_px - edge, top + side))))
            if self.ground.tissue[y // COARSE_PX, x // COARSE_PX] < 1:
                continue
            if len(known) and np.abs(known - (x, y)).max(1).min() <= DISC_PX:
                continue
            if self.ground.pixels(x - 24, y - 24, 48, 48).mean() <= 200:  # no lumen and no gap
                return x, y
        return None

    def _disc(self, index: int) -> tuple[Pixels, int, int]:
        """The ground with the object blended in, [DISC_PX, DISC_PX, 3], and its upper left corner.

        As in `windows`: other mitoses of the patch are painted over, and all kinds are cut the way some negative lies in its
        patch. Where the patch ends the ground goes on.
        """
        o, (field, from_x, from_y) = self.objects[index], self._sources[index]
        half = DISC_PX // 2
        x, y = round(o.x_um / UM_PER_PX) - half, round(o.y_um / UM_PER_PX) - half
        ground = self.ground.pixels(x, y, DISC_PX, DISC_PX)
        generator = np.random.default_rng((self.seed, 4, index))
        shown = setting(field, from_x, from_y, int(o.kind == "mitosis"), self._negatives, generator)
        middle_x, middle_y = round(from_x), round(from_y)
        left, top = max(shown.box[0], middle_x - half), max(shown.box[1], middle_y - half)
        right, bottom = min(shown.box[2], middle_x + half), min(shown.box[3], middle_y + half)
        part = repainted(shown.pixels[top:bottom, left:right], self.stains[field.case], self.stain)
        across, down = np.arange(left, right) - middle_x + 0.5, np.arange(top, bottom) - middle_y + 0.5
        share = np.clip((RADIUS_PX - np.hypot(across[None], down[:, None])) / FEATHER_PX, 0, 1)
        ends = [
            np.minimum(np.arange(n) + 1, np.arange(n, 0, -1)) / FEATHER_PX
            for n in (bottom - top, right - left)
        ]
        share = np.minimum(share, np.minimum(ends[0][:, None], ends[1][None]))[..., None]
        place = (
            slice(top - middle_y + half, bottom - middle_y + half),
            slice(left - middle_x + half, right - middle_x + half),
        )
        ground[place] = (ground[place] * (1 - share) + part * share + 0.5).astype(np.uint8)
        return ground, x, y


@lru_cache(maxsize=1)  # reading them takes seconds, and slides are composed one after the other
def _patches_of(data: Path, part: str) -> list[Field]:
    return [f for f in part_of(read_fields(data), part) if max(f.pixels.shape) <= 128]


def stains_of_cases(fields: Sequence[Field]) -> dict[str, Stain]:
    """The stain of each case with at least LEAST_FIELDS fields."""
    of_case: dict[str, list[Pixels]] = defaultdict(list)
    for field in fields:
        of_case[field.case].append(field.pixels.reshape(-1, 3)[::5])
    found = {
        case: stain_of(np.concatenate(some)) for case, some in of_case.items() if len(some) >= LEAST_FIELDS
    }
    return {case: stain for case, stain in found.items() if stain is not None}


def _whole(field: Field, x: float, y: float) -> bool:
    height, width = field.pixels.shape[:2]
    return min(x, y, width - x, height - y) >= WHOLE_PX


def write_slide(composer: Composer, path: Path, *, quality: int = 85) -> dict[str, Any]:
    """A pyramidal TIFF at `path` and PATH's truth beside it, as `STEM.truth.json`. Returns the truth."""
    size = composer.size_px
    with replacing(path) as beside, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        reduced = [
            _mapped(Path(folder) / str(f), (math.ceil(size / f), math.ceil(size / f), 3)) for f in LEVELS[1:]
        ]
        with tifffile.TiffWriter(beside, bigtiff=True) as tiff:
            options: dict[str, Any] = {
                "tile": (TILE, TILE),
                "photometric": "rgb",
                "compression": "jpeg",
                "compressionargs": {"level": quality},
                "dtype": np.uint8,
                "resolutionunit": "CENTIMETER",
            }
            tiff.write(
                _full(composer, reduced),
                shape=(size, size, 3),
                resolution=(1e4 / UM_PER_PX,) * 2,
                **options,
            )
            for factor, level in zip(LEVELS[1:], reduced, strict=True):
                tiff.write(
                    _tiles(level),
                    shape=level.shape,
                    subfiletype=1,
                    resolution=(1e4 / UM_PER_PX / factor,) * 2,
                    **options,
                )
        truth = composer.truth()
        del reduced
    with replacing(path.with_name(f"{path.stem}.truth.json")) as beside:
        beside.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return truth


def _mapped(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Pixels in a file that has its room: a full disk is told now, and does not end the process later."""
    reserve(path, math.prod(shape))
    return np.memmap(path, np.uint8, "r+", shape=shape)


def _full(composer: Composer, reduced: Sequence[NDArray[np.uint8]]) -> Iterator[Pixels]:
    """Tiles of the full resolution, band by band; what lies below is filled on the way."""
    size = composer.size_px
    for top in range(0, size, TILE):
        height = min(TILE, size - top)
        band = np.full((TILE, math.ceil(size / TILE) * TILE, 3), GLASS, np.uint8)
        for left in range(0, size, 2048):
            width = min(2048, size - left)
            band[:height, left : left + width] = composer.pixels(left, top, width, height)
        for factor, level in zip(LEVELS[1:], reduced, strict=True):
            y, x = top // factor, math.ceil(size / factor)
            rows = min(TILE // factor, level.shape[0] - y)
            small = cv2.resize(band, (band.shape[1] // factor, TILE // factor), interpolation=cv2.INTER_AREA)
            level[y : y + rows] = small[:rows, :x]
        for left in range(0, size, TILE):
            yield np.ascontiguousarray(band[:, left : left + TILE])


def _tiles(level: NDArray[np.uint8]) -> Iterator[Pixels]:
    for top in range(0, level.shape[0], TILE):
        for left in range(0, level.shape[1], TILE):
            tile = np.full((TILE, TILE, 3), GLASS, np.uint8)
            part = level[top : top + TILE, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _tupac_row(data: Path, generator: np.random.Generator) -> dict[str, str]:
    with (data / "tables" / "tupac16_train_scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[generator.integers(len(rows))]

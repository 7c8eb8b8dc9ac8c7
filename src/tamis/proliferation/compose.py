"""Slides with a known truth: real pixels, synthetic layout. A test instrument, and no evidence about patients.

    tamis proliferation compose -o composed.tif --seed 7 --size 20000

Tissue is laid out as random blobs on glass and filled with real breast tumour fields (UCSB), turned, mirrored, brought to
the mean stain of one of them and blended over wide seams. Into it go discs of 16 um cut from the AMi-Br fields of chosen cases:
mitoses, expert look-alikes and other dark nuclei, all cut, restained and cloned alike (Perez 2003), so that a seam means
nothing. How many follows a row of the 500 TUPAC16 training slides: a count for its mitotic score is planted in one 2 mm2
square, fewer elsewhere. Everything is a function of the seed and the place, so any size is written in bounded memory.

The fields of UCSB are unlabelled: mitoses of their own, a few, count as false positives.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.proliferation.fields import UM_PER_PX, Field, part_of, read_fields
from tamis.proliferation.hotspot import hot_spot
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.windows import window
from tamis.writing import replacing

Pixels = NDArray[np.uint8]
Kind = Literal["mitosis", "expert", "mined"]
TILE = 256
CELL_PX, SEAM_PX = 640, 96  # a texture fills a cell and half a seam around it
DISC_PX = 64  # 16 um
GLASS = 243
HOT_MM2 = 2.0
COUNTS = {1: (0, 5), 2: (6, 10), 3: (11, 40)}  # mitoses in 2 mm2 by TUPAC16's score
ELSEWHERE = 0.35  # density outside the hot square over the density inside
LEVELS = (1, 4, 16)


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
        self, data: Path, *, size_px: int, seed: int, part: str = "test", mitoses: int | None = None
    ) -> None:
        """`mitoses` replaces the count of the TUPAC16 row, for training."""
        self.asked = mitoses
        self.size_px, self.seed, self.part = size_px, seed, part
        generator = np.random.default_rng((seed, 1))
        fields = [f for f in part_of(read_fields(data), part) if max(f.pixels.shape) <= 128]
        paths = [path for path in sorted((data / "breast_ucsb" / "images").glob("*")) if path.is_file()]
        # Every second ground is for training, so that a tested slide shows neither known cells nor a known ground.
        textures = [_read(path) for path in paths[1 if part == "train" else 0 :: 2]]
        if not textures:
            raise InputError(
                f"{data / 'breast_ucsb' / 'images'} holds no pictures: expected the shared data."
            )
        self.stain = _mean_density(textures[generator.integers(len(textures))])
        self.textures = [_restained(t, self.stain) for t in textures]
        self.row = _tupac_row(data, generator)
        self._layout()
        self.objects, self._sources = self._plant(fields, generator)

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

    def pixels(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Any rectangle, [height, width, 3]; the same wherever its borders lie."""
        out = self._ground(left, top, width, height)
        for i in self._objects_in(left, top, width, height):
            disc, x, y = self._disc(i)
            a, b = max(left, x), max(top, y)
            c, d = min(left + width, x + DISC_PX), min(top + height, y + DISC_PX)
            if c > a and d > b:
                out[b - top : d - top, a - left : c - left] = disc[b - y : d - y, a - x : c - x]
        return out

    def _layout(self) -> None:
        """Where there is tissue: a smooth random field, above its median, at 32 px."""
        generator = np.random.default_rng((self.seed, 2))
        side = max(8, math.ceil(self.size_px / 32) + 2)
        coarse = max(4, round(self.size_px / 2500))
        noise = cv2.resize(
            generator.normal(0, 1, (coarse, coarse)), (side, side), interpolation=cv2.INTER_CUBIC
        )
        fine = cv2.resize(
            generator.normal(0, 0.25, (coarse * 6,) * 2), (side, side), interpolation=cv2.INTER_CUBIC
        )
        y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
        height = noise + fine - 2.5 * np.maximum(np.hypot(x, y) - 0.75, 0)
        cut = np.quantile(height, 0.3)
        self.tissue = np.clip((height - cut) * 12 + 0.5, 0, 1).astype(np.float32)

    def _plant(
        self, fields: Sequence[Field], generator: np.random.Generator
    ) -> tuple[list[Planted], list[tuple[Field, float, float]]]:
        low, high = COUNTS[int(self.row["mitotic_score"])]
        wanted = int(min(high, low + generator.geometric(0.12) - 1))
        if self.asked is not None:
            wanted = high = self.asked
        side = min(self.size_px, round(math.sqrt(HOT_MM2) * 1000 / UM_PER_PX))
        spots = [tuple(generator.integers(0, max(1, self.size_px - side), 2)) for _ in range(40)]
        hot = max(spots, key=lambda s: self._tissue_share(int(s[0]), int(s[1]), side))
        area = (self.size_px / side) ** 2 - 1
        outside = int(generator.poisson(max(0.0, wanted * ELSEWHERE * area)))
        sources: dict[Kind, list[tuple[Field, float, float]]] = {
            "mitosis": [(f, x, y) for f in fields for x, y in f.mitoses],
            "expert": [(f, x, y) for f in fields for x, y in f.lookalikes],
            "mined": [(f, x, y) for f in fields for x, y, rank in f.mined if rank >= 0.5],
        }
        others = round(30 * (self.size_px * UM_PER_PX / 1000) ** 2)
        amounts: list[tuple[Kind, bool, int]] = [
            ("mitosis", True, wanted),
            ("mitosis", False, outside),
            ("expert", False, (wanted + outside) // 2 + others // 8),
            ("mined", False, others),
        ]
        plan = [(kind, inside) for kind, inside, amount in amounts for _ in range(amount)]
        objects: list[Planted] = []
        taken: list[tuple[Field, float, float]] = []
        for kind, inside in plan:
            if not sources[kind]:
                continue
            area_of = (int(hot[0]), int(hot[1]), side) if inside else (0, 0, self.size_px)
            place = self._free_place(area_of, objects, generator)
            if place is None:
                continue
            field, x, y = sources[kind][generator.integers(len(sources[kind]))]
            planted = Planted(place[0] * UM_PER_PX, place[1] * UM_PER_PX, kind, field.case)
            if kind == "mitosis" and not inside and self._too_hot([*objects, planted], high):
                continue
            objects.append(planted)
            taken.append((field, x, y))
        return objects, taken

    def _too_hot(self, objects: Sequence[Planted], high: int) -> bool:
        """Some window would hold more than the row's score allows."""
        spot = hot_spot([Mitosis(o.x_um, o.y_um, 1.0) for o in objects if o.kind == "mitosis"], HOT_MM2)
        return spot is not None and spot.count > high

    def _free_place(
        self, area: tuple[int, int, int], objects: Sequence[Planted], generator: np.random.Generator
    ) -> tuple[int, int] | None:
        left, top, side = area
        edge = DISC_PX
        for _ in range(200):
            x = int(generator.integers(max(edge, left), max(edge + 1, min(self.size_px - edge, left + side))))
            y = int(generator.integers(max(edge, top), max(edge + 1, min(self.size_px - edge, top + side))))
            ground = self._ground(x - 12, y - 12, 24, 24) if self.tissue[y // 32, x // 32] >= 1 else None
            if ground is None or ground.mean() > 200:  # a lumen or a gap
                continue
            apart = DISC_PX * UM_PER_PX
            if all(max(abs(o.x_um - x * UM_PER_PX), abs(o.y_um - y * UM_PER_PX)) > apart for o in objects):
                return x, y
        return None

    def _tissue_share(self, left: int, top: int, side: int) -> float:
        return float(self.tissue[top // 32 : (top + side) // 32, left // 32 : (left + side) // 32].mean())

    def _ground(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Tissue without objects: textures of a grid of cells, blended over seams, on glass."""
        total = np.zeros((height, width, 3), np.float32)
        weight = np.zeros((height, width), np.float32)
        reach = CELL_PX + SEAM_PX
        for row in range((top - SEAM_PX) // CELL_PX, (top + height - 1) // CELL_PX + 1):
            for column in range((left - SEAM_PX) // CELL_PX, (left + width - 1) // CELL_PX + 1):
                x, y = column * CELL_PX, row * CELL_PX
                a, b = max(left, x), max(top, y)
                c, d = min(left + width, x + reach), min(top + height, y + reach)
                if c <= a or d <= b:
                    continue
                texture = self._cell(row, column)[b - y : d - y, a - x : c - x]
                ramp = _RAMP[b - y : d - y, None] * _RAMP[None, a - x : c - x]
                total[b - top : d - top, a - left : c - left] += texture * ramp[..., None]
                weight[b - top : d - top, a - left : c - left] += ramp
        total /= weight[..., None]
        columns = (np.arange(left, left + width, dtype=np.float32) + 0.5) / 32
        rows = (np.arange(top, top + height, dtype=np.float32) + 0.5) / 32
        here = cv2.remap(
            self.tissue, *np.meshgrid(columns, rows), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mixed = GLASS + (total - GLASS) * here[..., None]
        return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)

    def _cell(self, row: int, column: int) -> Pixels:
        """[736, 736, 3]: some part of some texture, turned and mirrored."""
        generator = np.random.default_rng((self.seed, 3, row + 1000, column + 1000))
        texture = self.textures[generator.integers(len(self.textures))]
        reach = CELL_PX + SEAM_PX
        y = int(generator.integers(texture.shape[0] - reach + 1))
        x = int(generator.integers(texture.shape[1] - reach + 1))
        part = np.rot90(texture[y : y + reach, x : x + reach], int(generator.integers(4)))
        return part[:, ::-1] if generator.random() < 0.5 else part

    def _objects_in(self, left: int, top: int, width: int, height: int) -> Iterator[int]:
        reach = DISC_PX
        for i, o in enumerate(self.objects):
            x, y = o.x_um / UM_PER_PX, o.y_um / UM_PER_PX
            if left - reach < x < left + width + reach and top - reach < y < top + height + reach:
                yield i

    def _disc(self, index: int) -> tuple[Pixels, int, int]:
        """The ground with the object cloned in, [64, 64, 3], and its upper left corner."""
        o, (field, from_x, from_y) = self.objects[index], self._sources[index]
        x, y = round(o.x_um / UM_PER_PX) - DISC_PX // 2, round(o.y_um / UM_PER_PX) - DISC_PX // 2
        ground = self._ground(x, y, DISC_PX, DISC_PX)
        source = _restained(window(field.pixels, from_x, from_y, size=DISC_PX), self.stain, of=field.pixels)
        yy, xx = np.mgrid[:DISC_PX, :DISC_PX] - (DISC_PX - 1) / 2
        inside = np.clip((28 - np.hypot(xx, yy)) / 8, 0, 1).astype(np.float32)[..., None]
        mask = (inside[..., 0] > 0.02).astype(np.uint8) * 255
        middle = (DISC_PX // 2, DISC_PX // 2)
        cloned = cv2.seamlessClone(source, ground, mask, middle, cv2.NORMAL_CLONE)
        # Cloning keeps edges and lets colours drift with the ground: half of each keeps a mitosis as dark as it was.
        mixed = 0.35 * cloned.astype(np.float32) + 0.65 * source
        return (ground * (1 - inside) + mixed * inside + 0.5).astype(np.uint8), x, y


def write_slide(composer: Composer, path: Path, *, quality: int = 85) -> dict[str, Any]:
    """A pyramidal TIFF at `path` and PATH's truth beside it, as `STEM.truth.json`. Returns the truth."""
    size = composer.size_px
    with replacing(path) as beside, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        reduced = [
            np.lib.format.open_memmap(
                Path(folder) / f"{f}.npy", "w+", np.uint8, (math.ceil(size / f), math.ceil(size / f), 3)
            )
            for f in LEVELS[1:]
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


_EDGE = np.minimum((np.arange(CELL_PX + SEAM_PX) + 0.5) / SEAM_PX, 1)
_RAMP = np.minimum(_EDGE, _EDGE[::-1]).astype(np.float32)


def _mean_density(pixels: Pixels) -> NDArray[np.float64]:
    """Mean optical density of the stained pixels, per channel."""
    stained = pixels.reshape(-1, 3)[pixels.reshape(-1, 3).mean(1) < 215]
    chosen = stained if len(stained) > 50 else pixels.reshape(-1, 3)
    return np.asarray(-np.log10((chosen.astype(np.float64) + 1) / 246).mean(0).clip(0.02))


def _restained(pixels: Pixels, stain: NDArray[np.float64], of: Pixels | None = None) -> Pixels:
    """Each channel's density scaled so that the mean of `of` (or of the picture itself) becomes `stain`."""
    gain = np.clip(stain / _mean_density(pixels if of is None else of), 0.4, 2.5)
    table = np.arange(256)
    curve = [246 * np.power((table + 1) / 246, g) - 1 for g in gain]
    lut = np.clip(np.stack(curve, 1) + 0.5, 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(pixels, lut), np.uint8)


def _read(path: Path) -> Pixels:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None or min(bgr.shape[:2]) < CELL_PX + SEAM_PX:
        raise InputError(f"{path} is no picture of at least {CELL_PX + SEAM_PX} px.")
    return np.ascontiguousarray(bgr[..., ::-1])


def _tupac_row(data: Path, generator: np.random.Generator) -> dict[str, str]:
    with (data / "tables" / "tupac16_train_scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[generator.integers(len(rows))]

"""Training windows: 128 px around a nucleus, mitotic or not, drawn so that only the nucleus tells which.

Every AMi-Br patch is centred on a mitosis, and a network finds that out in two ways. Its negatives lie 25 to 64 px off
that centre, so a window around one runs over the patch's edge and a window around a mitosis does not. And that mitosis
lies in every negative's window, so that "a mitosis beside it" comes to mean "no mitosis", the reverse of what is so in
tissue; a first network learnt exactly this, and its AUC of 0.9998 was worth nothing. Therefore both kinds are made alike
(`Setting`): each is cut the way some negative lies in its patch and never seen farther than 64 px; in a negative's
window the mitoses are painted over with tissue from elsewhere in the patch, in a mitosis's window a disc where some
negative would have had its mitosis. Beyond the cut both are mirrored, and the centre of both is moved at random.

For training (`Sampler`) half of the cuts are filled up with another patch of the case instead, and one disc in three shows
another mitosis of the case, for both kinds: in a hot spot mitoses lie beside each other, and beside nuclei that are none.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.augment import SOURCE_PX, augmented
from tamis.proliferation.fields import Field
from tamis.proliferation.stain import Stain, stain_of

WINDOW_PX = 128
CROP_SHARE = 0.2
FILLED_SHARE, NEIGHBOUR_SHARE = 0.5, 0.33
FEATHER_PX = 6.0
REAL_SHARE = 0.5  # of mitoses and of others alike, where there are composed slides as well
COMPOSED = "composed"
OWN_PX = 20.0  # a label this close to the nucleus is its own
EDGE_PX = 8.0
"""A label closer to its patch's edge is less than half a nucleus, and mirrored it looks like two daughters."""
DISC_PX = 21  # painted over: a mitosis and some of its cytoplasm
Box = tuple[int, int, int, int]
"""left, top, right, bottom in px."""


@dataclass(frozen=True, slots=True)
class Nucleus:
    """A place in a field, 1 for a mitosis, and how often it is drawn."""

    field: int
    x: float
    y: float
    label: int
    weight: float = 1.0


def window(
    pixels: NDArray[np.uint8], x: float, y: float, box: Box | None = None, size: int = WINDOW_PX
) -> NDArray[np.uint8]:
    """[size, size, 3] around (x, y), from the nearest whole pixel; mirrored beyond `box`, or beyond the picture."""
    left, top, right, bottom = box or (0, 0, pixels.shape[1], pixels.shape[0])
    half = size // 2
    columns = _mirrored(np.arange(round(x) - half, round(x) + half), left, right)
    rows = _mirrored(np.arange(round(y) - half, round(y) + half), top, bottom)
    return pixels[rows[:, None], columns[None]]


@dataclass(frozen=True, slots=True)
class Setting:
    """A picture and the part of it that may be seen around (x, y)."""

    pixels: NDArray[np.uint8]
    box: Box


def setting(
    field: Field,
    x: float,
    y: float,
    label: int,
    negatives: Sequence[tuple[float, float]],
    generator: np.random.Generator,
    neighbours: Sequence[tuple[NDArray[np.uint8], float, float]] = (),
) -> Setting:
    """(x, y) of `field` as every nucleus is shown. `negatives` are places of negatives in AMi-Br patches.

    neighbours  mitoses of the same case that may be painted in where tissue would be
    """
    height, width = field.pixels.shape[:2]
    half = WINDOW_PX // 2
    box = 0, 0, width, height
    if field.origin == COMPOSED:  # mitoses and others lie in the same ground: nothing to make alike
        return Setting(field.pixels, box)
    hidden = [(a, b) for a, b in field.mitoses if math.hypot(a - x, b - y) > OWN_PX]
    if label and negatives:
        other_x, other_y = negatives[int(generator.integers(len(negatives)))]
        if _is_patch(field):
            left, top = round(x - other_x), round(y - other_y)
            box = max(0, left), max(0, top), min(width, left + WINDOW_PX), min(height, top + WINDOW_PX)
        hidden.append((x + half - other_x, y + half - other_y))
    seen = (
        max(box[0], round(x) - half),
        max(box[1], round(y) - half),
        min(box[2], round(x) + half),
        min(box[3], round(y) + half),
    )
    if seen[2] - seen[0] < 24 or seen[3] - seen[1] < 24:
        seen = 0, 0, width, height
    spare = [(x, y), *field.mitoses]
    if neighbours and generator.random() < NEIGHBOUR_SHARE:
        some = [neighbours[int(generator.integers(len(neighbours)))] for _ in hidden]
        return Setting(painted_over(field.pixels, hidden, spare, generator, some), seen)
    return Setting(painted_over(field.pixels, hidden, spare, generator), seen)


def filled(
    shown: Setting, x: float, y: float, other: Field, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """[SOURCE_PX, SOURCE_PX, 3] around (x, y): beyond the box, instead of its mirror image, a corner of `other`."""
    height, width = other.pixels.shape[:2]
    corners = [(a, b) for a in (20.0, width - 20.0) for b in (20.0, height - 20.0)]
    away = [min((math.hypot(a - u, b - v) for u, v in other.mitoses), default=99.0) for a, b in corners]
    corner = corners[int(np.argmax(away + generator.uniform(0, 20, 4)))]
    out = window(other.pixels, *corner, size=SOURCE_PX)[:: generator.choice((-1, 1))].copy()
    half = SOURCE_PX // 2
    left, top = max(shown.box[0], round(x) - half), max(shown.box[1], round(y) - half)
    right, bottom = min(shown.box[2], round(x) + half), min(shown.box[3], round(y) + half)
    ends = [
        np.minimum(np.minimum(np.arange(n) + 1, np.arange(n, 0, -1)) / FEATHER_PX, 1)
        for n in (bottom - top, right - left)
    ]
    share = (ends[0][:, None] * ends[1][None])[..., None].astype(np.float32)
    place = (
        slice(top - round(y) + half, bottom - round(y) + half),
        slice(left - round(x) + half, right - round(x) + half),
    )
    out[place] = out[place] * (1 - share) + shown.pixels[top:bottom, left:right] * share + 0.5
    return out


def painted_over(
    pixels: NDArray[np.uint8],
    places: Sequence[tuple[float, float]],
    spare: Sequence[tuple[float, float]],
    generator: np.random.Generator,
    instead: Sequence[tuple[NDArray[np.uint8], float, float]] = (),
) -> NDArray[np.uint8]:
    """A copy with a feathered disc at each of `places` replaced by tissue from where nothing of `spare` is.

    instead  for each of `places` a picture and the place in it to show there
    """
    height, width = pixels.shape[:2]
    out = pixels.copy()
    for number, (x, y) in enumerate(places):
        column, row = round(x), round(y)
        if not (0 <= column < width and 0 <= row < height):
            continue
        low, high = (
            (DISC_PX, DISC_PX),
            (max(DISC_PX + 1, width - DISC_PX), max(DISC_PX + 1, height - DISC_PX)),
        )
        tries = generator.integers(low, high, (12, 2))
        away = np.array([*spare, *places]).reshape(-1, 2)
        nearest = np.hypot(*(tries[:, None] - away[None]).transpose(2, 0, 1)).min(1)
        from_x, from_y = tries[int(nearest.argmax())]
        source = window(pixels, float(from_x), float(from_y), size=2 * DISC_PX)
        if instead:
            source = np.rot90(window(*instead[number], size=2 * DISC_PX), int(generator.integers(4)))
        top, left = max(0, row - DISC_PX), max(0, column - DISC_PX)
        bottom, right = min(height, row + DISC_PX), min(width, column + DISC_PX)
        part = (
            slice(top - row + DISC_PX, bottom - row + DISC_PX),
            slice(left - column + DISC_PX, right - column + DISC_PX),
        )
        share = _DISC[part][..., None]
        out[top:bottom, left:right] = out[top:bottom, left:right] * (1 - share) + source[part] * share + 0.5
    return out


class Sampler:
    """Batches of windows, `share` of them mitoses, each depending on (seed, step) alone.

    Real fields and composed slides have the same share of mitoses, so that neither says anything.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        nuclei: Sequence[Nucleus],
        *,
        batch: int,
        seed: int,
        share: float = 0.35,
        others: Sequence[Stain] = (),
    ) -> None:
        """`others` are stains to show the windows in, beside those of the fields' own cases."""
        self.fields, self.batch, self.seed = fields, batch, seed
        self.positives = [n for n in nuclei if n.label]
        self.negatives = [n for n in nuclei if not n.label]
        self.chance = self._balanced(self.negatives, np.array([n.weight for n in self.negatives]))
        # Each case counts with the root of its mitoses: three cases hold a quarter of all.
        cases = [fields[n.field].case for n in self.positives]
        count = Counter(cases)
        weight = np.array(
            [n.weight * count[case] ** -0.5 for n, case in zip(self.positives, cases, strict=True)]
        )
        self.positive_chance = self._balanced(self.positives, weight)
        self.positive_count = round(batch * share)
        self.places = [(n.x, n.y) for n in self.negatives if _is_patch(fields[n.field])]
        self.of_case: dict[str, list[Field]] = defaultdict(list)
        self.neighbours: dict[str, list[tuple[NDArray[np.uint8], float, float]]] = defaultdict(list)
        for field in fields:
            if field.origin != COMPOSED:
                self.of_case[field.case].append(field)
                height, width = field.pixels.shape[:2]
                self.neighbours[field.case] += [
                    (field.pixels, x, y)
                    for x, y in field.mitoses
                    if min(x, y, width - x, height - y) >= DISC_PX
                ]
        self.stains = stains_by_case(fields)
        self.others = [*self.stains.values(), *others]

    def _balanced(self, nuclei: Sequence[Nucleus], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        composed = np.array([self.fields[n.field].origin == COMPOSED for n in nuclei], bool)
        if composed.any() and not composed.all():
            weight = np.where(
                composed,
                weight * (1 - REAL_SHARE) / weight[composed].sum(),
                weight * REAL_SHARE / weight[~composed].sum(),
            )
        return np.asarray(weight / weight.sum(), np.float64)

    def __call__(self, first_step: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """(windows [B, 128, 128, 3], labels [B]) of first_step and all later ones."""
        step = first_step
        while True:
            generator = np.random.default_rng((self.seed, step))
            chosen = [
                self.positives[i]
                for i in generator.choice(len(self.positives), self.positive_count, p=self.positive_chance)
            ] + [
                self.negatives[i]
                for i in generator.choice(
                    len(self.negatives), self.batch - self.positive_count, p=self.chance
                )
            ]
            yield (
                np.stack([self.draw(nucleus, generator) for nucleus in chosen]),
                np.array([n.label for n in chosen], np.float32),
            )
            step += 1

    def draw(self, nucleus: Nucleus, generator: np.random.Generator) -> NDArray[np.uint8]:
        field, x, y = self.fields[nucleus.field], nucleus.x, nucleus.y
        around = self.neighbours.get(field.case, ())
        shown = setting(field, x, y, nucleus.label, self.places, generator, around)
        if generator.random() < CROP_SHARE:
            shown = Setting(shown.pixels, _cropped(shown.box, x, y, generator))
        if field.origin != COMPOSED and generator.random() < FILLED_SHARE:
            patches = self.of_case[field.case]
            source = filled(shown, x, y, patches[int(generator.integers(len(patches)))], generator)
        else:
            # Mirrored here: OpenCV's own border turns black beyond one reflection.
            source = window(shown.pixels, x, y, shown.box, SOURCE_PX)
        off = x - round(x), y - round(y)
        own = self.stains.get(field.case)
        return augmented(source, off, WINDOW_PX, generator, own=own, others=self.others)


def stains_by_case(fields: Sequence[Field]) -> dict[str, Stain]:
    """The stain of every case, as far as enough of it is stained."""
    pixels: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    for field in fields:
        flat = field.pixels.reshape(-1, 3)
        pixels[field.case].append(flat[:: max(5, len(flat) // 100_000)])
    found = {case: stain_of(np.concatenate(some)) for case, some in pixels.items()}
    return {case: stain for case, stain in found.items() if stain is not None}


def nuclei_of(
    fields: Sequence[Field],
    *,
    lookalike_weight: float = 20.0,
    peaks: Callable[[NDArray[np.uint8]], NDArray[np.float64]] | None = None,
) -> list[Nucleus]:
    """Every labelled nucleus, and with `peaks` (picture -> places [n, 2]) unlabelled dark ones too, far from labels."""
    nuclei = []
    for i, field in enumerate(fields):
        nuclei += [Nucleus(i, x, y, 1) for x, y in field.mitoses]
        height, width = field.pixels.shape[:2]
        nuclei += [
            Nucleus(i, x, y, 0, lookalike_weight)
            for x, y in field.lookalikes
            if min(x, y, width - x, height - y) >= EDGE_PX
        ]
        nuclei += [Nucleus(i, x, y, 0, 0.5 + rank) for x, y, rank in field.mined]
        if peaks is None:
            continue
        known = np.array([*field.mitoses, *field.lookalikes, *((x, y) for x, y, _ in field.mined)])
        for x, y in peaks(field.pixels):
            if field.of_a_mitosis(float(x), float(y)):
                continue
            if len(known) == 0 or np.hypot(known[:, 0] - x, known[:, 1] - y).min() > 30:
                nuclei.append(Nucleus(i, float(x), float(y), 0, 0.3))
    return nuclei


def _is_patch(field: Field) -> bool:
    """One of AMi-Br's, centred on a mitosis."""
    return max(field.pixels.shape) <= WINDOW_PX


_REACH = np.hypot(*(np.mgrid[: 2 * DISC_PX, : 2 * DISC_PX] - (DISC_PX - 0.5)))
_DISC = np.clip((DISC_PX - _REACH) / 5, 0, 1).astype(np.float32)


def _cropped(box: Box, x: float, y: float, generator: np.random.Generator) -> Box:
    """A part of the box that holds (x, y), at least 10 px from its edges where the box allows, and 40 px wide."""
    sides = []
    for low, high, at in ((box[0], box[2], x), (box[1], box[3], y)):
        before, after = generator.uniform(10, WINDOW_PX / 2, 2)
        start, end = max(low, round(at - before)), min(high, round(at + after))
        if end - start < 40:
            start, end = max(low, min(start, end - 40)), min(high, max(end, start + 40))
        sides.append((start, end))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _mirrored(index: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """Indices folded back into [low, high), the edge itself not repeated."""
    period = max(1, 2 * (high - low - 1))
    folded = np.mod(index - low, period)
    return low + np.minimum(folded, period - folded)

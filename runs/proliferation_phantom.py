"""Draw the slide of `tamis demo`: a phantom in the colours of haematoxylin and eosin. Run: python runs/proliferation_phantom.py

Writes src/tamis/proliferation/samples/phantom.tif, a pyramidal TIFF of 2,304 x 1,792 px at 0.25 um/px (0.58 x 0.45 mm), and
phantom.csv, where its mitoses are. Everything in it is drawn here: no pixel and no shape comes from a real slide. It shows
the way from a slide to its report; what a detector makes of drawn cells says nothing about real ones.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "src" / "tamis" / "proliferation" / "samples"
WIDTH, HEIGHT, UM_PER_PX = 2304, 1792, 0.25
MITOSES = 9
# Optical density of the two dyes in red, green, blue (Ruifrok & Johnston 2001).
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
SEED = 20161003

Plane = NDArray[np.float32]


def noise(generator: np.random.Generator, scale_px: float, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Plane:
    """Smooth noise of standard deviation one."""
    small = max(4, round(shape[0] / scale_px)), max(4, round(shape[1] / scale_px))
    field = generator.normal(size=small).astype(np.float32)
    field = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def tissue_and_nests(generator: np.random.Generator) -> tuple[Plane, Plane]:
    """Where there is tissue, and where in it the tumour grows: both [HEIGHT, WIDTH] in 0..1."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    away = np.hypot((x - WIDTH / 2) / (WIDTH * 0.47), (y - HEIGHT / 2) / (HEIGHT * 0.46))
    tissue = np.clip((1.0 - away + 0.06 * noise(generator, 220)) * 30, 0, 1)
    nests = np.clip(noise(generator, 190) * 4 + 1.4, 0, 1)
    return tissue, nests * tissue


def draw_nucleus(
    plane: Plane, inside: Plane, x: float, y: float, generator: np.random.Generator, tumour: bool
) -> None:
    """A nucleus with a rim, coarse chromatin and, in the tumour, a nucleolus, added to the haematoxylin plane."""
    # A fibroblast's nucleus is 14 to 20 um long; drawn half as long it is as large as a metaphase plate, and taken for one.
    long = generator.uniform(15, 23) if tumour else generator.uniform(33, 47)
    wide = long * (generator.uniform(0.68, 0.95) if tumour else generator.uniform(0.1, 0.17))
    half = 48
    yy, xx = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    angle = generator.uniform(0, np.pi)
    u = np.cos(angle) * xx + np.sin(angle) * yy
    v = -np.sin(angle) * xx + np.cos(angle) * yy
    wobble = 1 + 0.07 * np.sin(3 * np.arctan2(v, u) + generator.uniform(0, 6))
    away = np.hypot(u / (long * 0.85 * wobble), v / (wide * 0.85 * wobble))
    shape = np.clip((1 - away) * 7, 0, 1)
    rim = np.exp(-(((away - 0.93) / 0.09) ** 2))
    texture = noise(generator, 5, (2 * half + 1, 2 * half + 1))
    density = shape * (0.30 + 0.07 * texture) + 0.20 * rim * shape
    density *= 1.0 if tumour else 0.75
    if tumour:
        ox, oy = generator.normal(size=2) * 4
        density += 0.22 * np.exp(-((u - ox) ** 2 + (v - oy) ** 2) / 10)
    else:
        density += 0.12 * shape
    stamp(plane, density, x, y)
    stamp(inside, shape, x, y)


def draw_mitosis(
    plane: Plane, eosin: Plane, x: float, y: float, generator: np.random.Generator, kind: int
) -> None:
    """Dense, ragged chromatin without a membrane, in a cleared cell: a plate, a ring, a clump, or two parting plates."""
    half = 42
    size = 2 * half + 1
    yy, xx = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    angle = generator.uniform(0, np.pi)
    u = np.cos(angle) * xx + np.sin(angle) * yy
    v = -np.sin(angle) * xx + np.cos(angle) * yy
    ragged = 1 + 0.16 * noise(generator, 4, (size, size))
    if kind == 0:  # metaphase, from the side
        away = np.hypot(u / 20, v / 6.5) * ragged
    elif kind == 1:  # anaphase
        apart = generator.uniform(11, 15)
        bend = 0.012 * u**2
        away = (
            np.minimum(np.hypot(u / 17, (v - apart + bend) / 5), np.hypot(u / 17, (v + apart - bend) / 5))
            * ragged
        )
    elif kind == 2:  # metaphase, from above
        away = (1 + np.abs(np.hypot(u, v) - 10) / 6 - 0.6) * ragged
    else:  # prometaphase
        away = np.hypot(u / 14, v / 12) * (1 + 0.13 * noise(generator, 8, (size, size)))
    chromatin = cv2.GaussianBlur(np.clip((1 - away) * 6, 0, 1).astype(np.float32), (0, 0), 0.9)
    cell = np.clip((1 - np.hypot(u / 36, v / 34)) * 6, 0, 1)
    top, left = int(y) - half, int(x) - half
    here = np.s_[top : top + size, left : left + size]
    plane[here] *= 1 - 0.9 * cell
    eosin[here] *= 1 - 0.35 * cell
    stamp(plane, chromatin * (1.05 + 0.08 * noise(generator, 3, (size, size))), x, y)


def stamp(plane: Plane, patch: Plane, x: float, y: float) -> None:
    half = patch.shape[0] // 2
    top, left = int(y) - half, int(x) - half
    target = plane[top : top + patch.shape[0], left : left + patch.shape[1]]
    np.maximum(target, patch, out=target)


def draw() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture [HEIGHT, WIDTH, 3] and the centres of its mitoses in um [MITOSES, 2]."""
    generator = np.random.default_rng(SEED)
    tissue, nests = tissue_and_nests(generator)
    haematoxylin = np.zeros((HEIGHT, WIDTH), np.float32)
    inside = np.zeros_like(haematoxylin)
    fibres = np.abs(noise(generator, 30) + 0.6 * noise(generator, 12))
    eosin = tissue * np.where(
        nests > 0.5, 0.17 + 0.02 * noise(generator, 40), 0.24 + 0.05 * np.clip(fibres, 0, 2)
    )
    margin = 60
    places: list[tuple[float, float]] = []
    mitoses: list[tuple[float, float]] = []
    for _ in range(60_000):
        x, y = generator.uniform(margin, WIDTH - margin), generator.uniform(margin, HEIGHT - margin)
        if tissue[int(y), int(x)] < 0.9:
            continue
        tumour = nests[int(y), int(x)] > 0.6
        apart = 42 if tumour else 70
        if any((x - a) ** 2 + (y - b) ** 2 < apart**2 for a, b in places):
            continue
        places.append((x, y))
        draw_nucleus(haematoxylin, inside, x, y, generator, bool(tumour))
    in_tumour = [p for p in places if nests[int(p[1]), int(p[0])] > 0.9 and p[0] < WIDTH * 0.75]
    for n, i in enumerate(generator.permutation(len(in_tumour))[: MITOSES * 6]):
        x, y = in_tumour[i]
        if len(mitoses) < MITOSES and all(np.hypot(x - a, y - b) > 150 for a, b in mitoses):
            draw_mitosis(haematoxylin, eosin, x, y, generator, n % 4)
            mitoses.append((x, y))
    haematoxylin += 0.03 * tissue
    density = haematoxylin[..., None] * HAEMATOXYLIN + (eosin * (1 - 0.5 * inside))[..., None] * EOSIN
    density += 0.008 * noise(generator, 3)[..., None] * tissue[..., None]
    light = 243 * 10 ** -cv2.GaussianBlur(density.astype(np.float32), (0, 0), 0.8)
    return np.clip(np.round(light), 0, 255).astype(np.uint8), (np.array(mitoses) + 0.5) * UM_PER_PX


def main() -> None:
    picture, mitoses = draw()
    FOLDER.mkdir(exist_ok=True)
    options = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 72},
    }
    with tifffile.TiffWriter(FOLDER / "phantom.tif") as tiff:
        for level in range(3):
            scale = 2.0**level
            per_cm = 1e4 / (UM_PER_PX * scale)
            smaller = cv2.resize(picture, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
            tiff.write(
                smaller,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                description="A drawn phantom, no tissue" if level == 0 else None,
                metadata=None,
                **options,
            )
    lines = ["image,x_um,y_um", *(f"phantom,{x:.2f},{y:.2f}" for x, y in mitoses)]
    (FOLDER / "phantom.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

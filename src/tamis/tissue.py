"""Where a slide holds stained tissue, and whether it is a brightfield slide at all.

Worked out on a small picture of the slide (8 um per px) in optical density, -log10(I / white). In haematoxylin and eosin
green is absorbed most and blue least (Ruifrok & Johnston 2001: H (0.65, 0.70, 0.29), E (0.07, 0.99, 0.11)). That separates
tissue from what also is dark: black ink, dust and cover-slip edges absorb all three alike, red ink absorbs blue as much
as green, blue and green ink absorb red most. The threshold is Otsu's (1979), kept between the noise of glass and a faint
stain, so that a blank slide gives nothing and a pale one is not lost to a few dark folds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError

if TYPE_CHECKING:
    from tamis.slides import Slide

LEAST_OD, MOST_OD = 0.02, 0.035  # of the threshold: noise of glass stays below 0.01, a faint stain above 0.04
SMOOTHING_UM = 8.0
CLOSING_UM = 24.0  # gaps between cells are tissue; fat cells (50-100 um) and lumina are not
SMALLEST_MM2 = 0.01
MOST_MASK_PX = 1 << 25  # beyond, the mask is coarser than asked: a whole 75 x 26 mm glass at 8 um fits; 1 GiB
DARK = 60  # half of a brightfield slide is never darker than this in every channel


def tissue_mask(slide: Slide, um_per_px: float = 8.0) -> tuple[NDArray[np.bool_], float]:
    """(mask [h, w], its um per px) over the whole slide; all False on a blank one.

    The um/px returned is the one asked for unless the slide's own pixels are larger, or the mask would be huge. Raises
    InputError for a fluorescence slide.
    """
    width_um, height_um = slide.size_um
    um_per_px = max(um_per_px, slide.um_per_px, (width_um * height_um / MOST_MASK_PX) ** 0.5)
    small = slide.thumbnail(um_per_px)
    _refuse_dark(small, str(slide.path))
    return tissue_in(small, um_per_px), um_per_px


def refuse_fluorescence(slide: Slide) -> None:
    """Raise InputError when the background is dark: such a slide is not H&E."""
    _refuse_dark(slide.thumbnail(max_px=512), str(slide.path))


def tissue_in(picture: NDArray[np.uint8], um_per_px: float) -> NDArray[np.bool_]:
    """The same on a picture [h, w, 3] of known scale."""
    density = cv2.GaussianBlur(_optical_density(picture), (0, 0), max(SMOOTHING_UM / um_per_px, 0.3))
    red, green, blue = (density[..., i] for i in range(3))
    strength = green - 0.7 * blue
    coloured = (green - blue > 0.12 * green) & (red < 1.15 * green + 0.01)
    strength = np.where(coloured, strength, 0).astype(np.float32)
    mask = (strength > _threshold(strength)).astype(np.uint8)
    radius = round(CLOSING_UM / um_per_px)
    if radius >= 1 and min(mask.shape) > 2 * radius:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
    smallest = min(SMALLEST_MM2 * 1e6 / um_per_px**2, 0.05 * mask.size)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = stats[:, cv2.CC_STAT_AREA] >= smallest
    kept[0] = False
    return np.asarray(kept[labels] if count > 1 else np.zeros(mask.shape, bool), bool)


def _optical_density(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Per channel, relative to this slide's own white, which yellowed glass or a warm lamp may have shifted."""
    flat = picture.reshape(-1, 3)[:: max(1, picture.size // 3_000_000)]
    white = np.clip(np.percentile(flat, 99, axis=0), 200, 255)
    return np.maximum(-np.log10((picture.astype(np.float32) + 1) / (white.astype(np.float32) + 1)), 0)


def _threshold(strength: NDArray[np.float32]) -> float:
    scaled = np.clip(strength * (255 / 0.6), 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled.reshape(1, -1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(np.clip(otsu * (0.6 / 255), LEAST_OD, MOST_OD))


def _refuse_dark(picture: NDArray[np.uint8], name: str) -> None:
    brightest = picture.max(2)
    if np.median(brightest) < DARK:
        raise InputError(
            f"{name}: most of it is dark, as in a fluorescence scan; expected haematoxylin and eosin on a bright background."
        )

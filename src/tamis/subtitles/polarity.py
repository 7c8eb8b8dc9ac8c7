"""Bright text or dark text: which side of a line's edges is the ink.

Ink is thin and of even width; what surrounds it is not. Bright text with a dark outline on a bright ground is the hard
case: its dark parts are thin too. There the bright ink is enclosed by the outline, nearly everywhere, while the bright
holes inside dark characters are few.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.subtitles.cwt import Measure

Plane = NDArray[np.uint8]


def text_polarity(picture: Plane, line: Measure) -> float:
    """Positive when the line of text in `picture` is bright, negative when it is dark; the more, the surer."""
    return sum(_vote(picture, line, left) for left in np.arange(line.left, line.right - 0.5 * line.scw, 2 * line.scw))


def _vote(picture: Plane, line: Measure, left: float) -> float:
    em = line.scw
    x0, x1 = max(0, int(left - 0.4 * em)), int(min(left + 2.4 * em, line.right + 0.4 * em))
    y0, y1 = max(0, int(line.top - 0.25 * em)), int(line.bottom + 0.25 * em)
    part = picture[y0:y1, x0:x1]
    if part.size == 0:
        return 0.0
    across = cv2.absdiff(part[:, 2:], part[:, :-2])
    strong = across > max(20, 0.5 * float(np.percentile(across, 97)))
    middle = (part[:, 2:].astype(np.int16) + part[:, :-2])[strong] / 2
    if len(middle) < 8:
        return 0.0
    bright = (part > np.median(middle)).astype(np.uint8)
    dark = 1 - bright
    width_bright, width_dark = _width(bright), _width(dark)
    enclosed = _enclosed(bright)
    ratio = float(enclosed.sum()) / max(1, int(dark.sum()))
    if width_dark > width_bright:
        return 1.0
    if ratio > 0.5:
        return 1.0
    return -1.0


def _width(mask: Plane) -> float:
    """Typical stroke width of a mask in px: a ribbon's mean distance to its edge is a quarter of its width."""
    distance = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L1, 3)
    inside = distance[distance > 0]
    return 4 * float(inside.mean()) if len(inside) else 0.0


def _enclosed(mask: Plane) -> NDArray[np.bool_]:
    """Parts of a mask that do not touch the border."""
    count, labels = cv2.connectedComponents(mask, connectivity=4)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    free = np.ones(count, bool)
    free[border] = False
    free[0] = False
    return free[labels]

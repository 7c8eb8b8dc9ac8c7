"""Draw the picture of `tamis demo`:  python runs/weakseg_sample.py

A drawing, no tissue of anybody: round glands on one side, crowded ragged ones on the other (tamis.weakseg.phantom).
"""

from __future__ import annotations

from pathlib import Path

import cv2

from tamis.weakseg.commands import SAMPLE_UM_PER_PX, SAMPLES
from tamis.weakseg.phantom import phantom

image, _ = phantom(700, 500, seed=4, um_per_px=SAMPLE_UM_PER_PX)
SAMPLES.mkdir(exist_ok=True)
target: Path = SAMPLES / "phantom.jpg"
cv2.imwrite(str(target), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
print(f"{target}: {target.stat().st_size / 1000:.0f} kB")

"""Segment cancer from image labels.

from tamis.weakseg import segment
summary = segment("slide.svs", "results")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["segment"]


def segment(
    path: str | Path, folder: str | Path, *, mpp: float | None = None, weights: str | None = None
) -> dict[str, Any]:
    """Write FOLDER/STEM.{probability.ome.tiff, mask.geojson, overlay.png, summary.json}; returns the summary.

    mpp      um per pixel at full resolution, where the file does not say it
    weights  a record that export wrote; by default the published network
    """
    from tamis.weakseg.network import load
    from tamis.weakseg.segmentation import segment_file

    return segment_file(path, Path(folder), load(weights), mpp=mpp)

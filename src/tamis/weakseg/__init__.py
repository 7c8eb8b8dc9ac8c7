"""Segment cancer from image labels.

from tamis.weakseg import segment
summary = segment("slide.svs", "results")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["segment"]


def segment(
    path: str | Path,
    folder: str | Path,
    *,
    mpp: float | None = None,
    threshold: float | None = None,
    weights: str | Path | None = None,
    whole: bool = False,
) -> dict[str, Any]:
    """Write FOLDER/STEM.{probability.ome.tiff, mask.geojson, overlay.png, summary.json}; returns the summary.

    path       a slide, a folder of one slide's DICOM files, a picture, or a URL that fsspec opens
    mpp        um per pixel at full resolution, where the file does not say it
    threshold  of the mask, in [0, 1]; by default the network's own
    weights    a record that export wrote; by default the published network
    whole      look at everything, and not only at stained tissue

    Raises InputError for what cannot be read (UnknownResolution: its um per pixel), WeightsError, OutputError.
    """
    from tamis.weakseg.network import load
    from tamis.weakseg.segmentation import segment_file

    return segment_file(path, Path(folder), load(weights), mpp=mpp, threshold=threshold, whole=whole)

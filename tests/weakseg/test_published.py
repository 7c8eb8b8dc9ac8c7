"""The weights that ship.  python -m pytest tests/weakseg/test_published.py"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tamis import weights
from tamis.weakseg import commands
from tamis.weakseg.network import FOLDER, PUBLISHED, load
from tamis.weakseg.phantom import phantom
from tamis.weakseg.segmentation import ArrayRegions, predict

RECORD = weights.load(FOLDER / f"{PUBLISHED}.json")


def test_the_golden_picture_gives_its_map() -> None:
    with np.load(io.BytesIO(weights.read_golden(RECORD)), allow_pickle=False) as golden:
        np.testing.assert_allclose(load(threads=1)(golden["input"]), golden["output"], atol=2e-3)


def test_the_record_says_what_must_be_known() -> None:
    assert "research only" in RECORD.licence
    assert RECORD.path.stat().st_size < 8e6
    assert RECORD.um_per_px is not None
    assert 0 < RECORD.operating_point["threshold"] < 1
    assert Path(RECORD.command).parts[0] == "runs"
    assert "pooled_f1" in RECORD.score


def test_tiles_give_the_map_of_the_whole() -> None:
    """Blended tiles differ from one pass only by what the network sees beyond the overlap."""
    network = load(threads=1)
    image = phantom(700, 520, seed=6)[0]
    whole = network(image)
    tiled = predict(ArrayRegions(image), image.shape[:2], None, network, tile_px=384)
    difference = np.abs(tiled - whole)
    assert difference.mean() < 0.005
    assert difference.max() < 0.1


def test_a_negative_image_stays_empty_where_tissue_is_real(shared_data: Path) -> None:
    """Benign colon: at most a tenth marked on average. These are training images: a check of the machinery, no score."""
    from tamis.weakseg.images import read_image
    from tamis.weakseg.maps import to_working_size

    network = load(threads=1)
    shares = []
    for name in ("train_61", "train_34", "train_14"):
        path = next((shared_data / "pathology" / "glas" / "images").glob(f"{name}.*"))
        image = to_working_size(read_image(path), 0.62, network.geometry.um_per_px, path)
        shares.append(float((network(image) > network.geometry.threshold).mean()))
    assert np.mean(shares) < 0.1


def test_the_demo_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands.demo(tmp_path)
    assert "phantom.jpg (drawn, not tissue)" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 4

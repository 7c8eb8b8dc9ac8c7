"""Class vectors fitted on features that stand still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tamis.subtitles.networks import FEATURES, Recogniser  # noqa: E402
from tamis.subtitles.train_head import (  # noqa: E402
    SharedHead,
    batches_of,
    features_of,
    gather,
    head_loss,
)

Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def toy_rows(n: int, classes: int = 5) -> Rows:
    generator = torch.Generator().manual_seed(3)
    base = torch.arange(n) % classes
    centres = torch.randn(classes, FEATURES, generator=generator)
    features = centres[base] + 0.1 * torch.randn(n, FEATURES, generator=generator)
    return features.half(), base, torch.full((n, 3), -1)


def toy_shard(path: Path) -> Path:
    """Three lines of noise with two labelled characters each, one Hangul among them."""
    rng = np.random.default_rng(1)
    np.savez(
        path,
        pixels=rng.integers(0, 255, (3, 2, 48, 544)).astype(np.uint8),
        labels=np.array([7, 8, 9, 20_000, 11, 12], np.int32),
        spans=np.array([[200, 232, 216], [232, 264, 248]] * 3, np.float32),
        offsets=np.array([0, 2, 4, 6]),
    )
    return path


def test_every_row_comes_once_in_each_pass() -> None:
    rows = (torch.arange(40.0)[:, None], torch.arange(40), torch.full((40, 3), -1))
    stream = batches_of(rows, size=8, seed=1)(0)
    passes = [torch.cat([next(stream)[1] for _ in range(5)]) for _ in range(2)]
    assert all(sorted(seen.tolist()) == list(range(40)) for seen in passes)
    assert passes[0].tolist() != passes[1].tolist()


def test_batches_depend_on_their_step_alone() -> None:
    batches = batches_of(toy_rows(40), size=8, seed=1)
    whole = batches(0)
    seen = [next(whole)[1] for _ in range(9)]
    again = batches(7)
    assert torch.equal(next(again)[1], seen[7])
    assert torch.equal(next(again)[1], seen[8])


def test_the_head_learns_what_the_features_tell() -> None:
    torch.manual_seed(0)
    model = SharedHead()
    rows = toy_rows(64)
    batch = (rows[0].float(), rows[1], rows[2])
    before = head_loss(model, batch)[0].item()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, eps=1e-4)
    for _ in range(10):
        loss, extra = head_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 * before
    assert extra["accuracy"] == 1.0


def test_features_are_the_mean_over_members(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shard = toy_shard(tmp_path / "shard-0000.npz")
    first, second = Recogniser("vgg").eval(), Recogniser("vgg").eval()
    alone = [features_of([member], shard, seed=4) for member in (first, second)]
    both = features_of([first, second], shard, seed=4)
    assert both["features"].shape == (6, FEATURES)
    np.testing.assert_allclose(
        both["features"].astype(float),
        (alone[0]["features"].astype(float) + alone[1]["features"].astype(float)) / 2,
        atol=2e-3,  # of half precision
    )
    assert both["base"].tolist() == alone[0]["base"].tolist()
    assert (both["parts"][:, 0] >= 0).sum() == 1


def test_features_once_computed_are_not_computed_again(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    toy_shard(tmp_path / "lines" / "shard-0000.npz")
    member = Recogniser("vgg").eval()
    rows = gather([member], tmp_path / "lines", 1, tmp_path / "kept", seed=2)
    again = gather([], tmp_path / "lines", 1, tmp_path / "kept", seed=2)  # no member could compute them
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True))
    assert not list((tmp_path / "kept").glob("*.part*"))

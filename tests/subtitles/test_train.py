"""Targets, batches and losses of the character networks."""

import argparse
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tamis.cli import build_parser  # noqa: E402
from tamis.errors import InputError  # noqa: E402
from tamis.subtitles import commands, train  # noqa: E402
from tamis.subtitles.characters import base_classes, index  # noqa: E402
from tamis.subtitles.networks import DESIGNS, FEATURES, Recogniser, Trunk, recognition_loss  # noqa: E402
from tamis.subtitles.strip import HEIGHT, STRIDE  # noqa: E402
from tamis.subtitles.train import CROP, Lines, collate  # noqa: E402

HANGUL = len(base_classes())


class _Still:
    """A generator that never moves the looked-up position."""

    def choice(self, values: list[int]) -> int:
        return 0


def _batch(labels: list[int], spans: list[tuple[float, float, float]]):  # type: ignore[no-untyped-def]
    strip = np.zeros((2, HEIGHT, CROP), np.uint8)
    return collate(
        _Still(),  # type: ignore[arg-type]
        [strip],
        [np.array(labels, np.int32)],
        [np.array(spans, np.float32)],
    )


def test_states_say_centre_part_space_and_outside() -> None:
    a, han = index()["一"], index()["한"]
    _, targets = _batch([a, -1, han], [(32, 64, 48), (64, 76, 70), (76, 108, 92)])
    state = targets.state[0]
    assert state[48 // STRIDE] == 1 and state[92 // STRIDE] == 1
    assert (state[8:12] == 2).all() and (state[16:19] == 3).all()
    assert (state[:8] == 0).all() and (state[27:] == 0).all()
    assert targets.base.tolist() == [a, HANGUL]
    assert targets.parts.tolist() == [[-1, -1, -1], [18, 0, 4]]


def test_a_centre_outside_the_crop_is_no_target_but_its_part_is() -> None:
    _, targets = _batch([index()["一"]], [(-20, 12, -4)])
    assert len(targets.base) == 0
    assert (targets.state[0, :3] == 2).all()


def test_strangers_are_centres_without_a_class() -> None:
    _, targets = _batch([-2], [(0, 32, 16)])
    assert targets.state[0, 4] == 1 and len(targets.base) == 0


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_every_design_keeps_the_contract(design: str) -> None:
    trunk = Trunk(design).eval()
    with torch.no_grad():
        features, states = trunk(torch.rand(2, 2, HEIGHT, 128))
    assert features.shape == (2, FEATURES, 128 // STRIDE)
    assert states.shape == (2, 4, 128 // STRIDE)


def test_the_loss_falls_when_the_head_learns_one_line() -> None:
    torch.manual_seed(0)
    model = Recogniser("vgg")
    batch = _batch([index()["中"], index()["글"]], [(32, 64, 48), (64, 96, 80)])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss, extra = recognition_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert set(extra) == {"class_loss", "state_loss", "accuracy"}


def test_a_frozen_head_does_not_learn() -> None:
    model = Recogniser("vgg", freeze_head=True)
    recognition_loss(model, _batch([index()["中"]], [(32, 64, 48)]))[0].backward()
    assert all(p.grad is None for p in model.head.parameters())
    assert all(p.grad is not None for p in model.trunk.parameters())


def test_batches_depend_on_their_step_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 2, 48, 544)).astype(np.uint8)
    labels = np.full(6, index()["一"], np.int32)
    spans = np.tile(np.array([[200, 232, 216]], np.float32), (6, 1))
    for number in range(4):
        np.savez(
            tmp_path / f"shard-{number:04d}.npz",
            pixels=pixels,
            labels=labels,
            spans=spans,
            offsets=np.arange(7),
        )
    lines = Lines(tmp_path, shards=4, lines_per_batch=2, seed=3)
    stream = lines.batches(0)
    third = [next(stream) for _ in range(3)][2]
    again = next(Lines(tmp_path, shards=4, lines_per_batch=2, seed=3).batches(2))
    assert torch.equal(third[0], again[0]) and torch.equal(third[1].state, again[1].state)


def test_shards_that_never_come_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "WAIT_S", 0.01)
    monkeypatch.setattr(train, "PATIENCE_S", 0.05)
    lines = Lines(tmp_path, shards=4, lines_per_batch=2, seed=3)
    with pytest.raises(InputError, match="holds no rendered lines"):
        lines.load(0)
    for number in range(2):
        (tmp_path / f"shard-{number:04d}.npz").touch()
    with pytest.raises(InputError, match=r"shard-0003.npz is missing, .* give --shards 2"):
        lines.load(3)


def test_the_command_offers_every_design() -> None:
    assert list(commands.DESIGNS) == sorted(DESIGNS)


def test_training_takes_as_many_shards_as_are_rendered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    from tamis.subtitles import synthesis

    parser = build_parser()
    taken = parser.parse_args(["subtitles", "train", "vgg", "--lines", "L", "--out", "O"]).shards
    told: list[argparse.Namespace] = []

    def parsed(self: argparse.ArgumentParser) -> argparse.Namespace:
        told.append(argparse.ArgumentParser.parse_known_args(self, ["D", "O"])[0])
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    with pytest.raises(SystemExit):
        synthesis.main()
    assert told[0].shards == taken
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        parser.parse_args(["subtitles", "train", "vgg", "--lines", "L", "--out", "O", "--batch", "0"])
    assert "from 1 on" in capsys.readouterr().err

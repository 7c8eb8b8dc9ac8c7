"""The network: a trunk of convolutions, a side output on each of its stages, and their fusion.

    image [B, H, W, 3] uint8 range -> stages -> one 1x1 convolution each -> logits, upsampled -> sigmoid -> p_t [B, H, W]
    p_f = sum_t w_t p_t

Trunks: `vgg`, the first three stages of VGG-16 (Simonyan & Zisserman 2015; side outputs after Xie & Tu, HED, 2015) with
strides 1, 2, 4 and 1.74 million weights; and `lite0`, the first five of EfficientNet-Lite0 with strides 4, 8, 16. Side
outputs read the last convolution of a stage, before it is pooled. The fixed fusion weights of VGG are those of
DWS-MIL (Jia et al., TMI 2017).

The image's own normalisation is the first operation of the network, so that no caller can get it wrong.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (123.68, 116.779, 103.939)
"""RGB mean of ImageNet that VGG-16 was trained with, on [0, 255]."""
STD = (58.395, 57.12, 57.375)
START_BIAS = -2.0
"""Of every side output: maps start at sigmoid(-2) = 0.12. With 0.5 everywhere, the generalised mean is already far
above 1/2 on every image and the constrained loss first falls by filling positives whole, which it then never leaves."""

VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256))
FIXED_FUSION = (0.2, 0.35, 0.45)
FEATURE_SCALE = {"vgg": (60.0, 10.0, 6.0), "lite0": (8.0, 6.0, 4.0)}
"""Mean activation of each stage as pretrained, on H&E. Side outputs read features divided by it: otherwise one step of
Adam moves the logits of the first stage by ten times as much as those of the third."""


class VggTrunk(nn.Module):
    """conv1_1 ... conv3_3: [B, 3, H, W] -> features [B, 64, H, W], [B, 128, H/2, W/2], [B, 256, H/4, W/4]."""

    channels = (64, 128, 256)
    strides = (1, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        stages, width = [], 3
        for index, widths in enumerate(VGG_STAGES):
            layers: list[nn.Module] = [] if index == 0 else [nn.MaxPool2d(2)]
            for out in widths:
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(inplace=True)]
                width = out
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


# EfficientNet-Lite0 (Tan & Le 2019, the variant without squeeze-and-excitation, ReLU6): expansion, width, depth,
# stride, kernel of each group of inverted residuals up to stride 16.
LITE0_GROUPS = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; added to its input where shapes allow.

    Batch normalisation is folded into the convolutions when the weights are loaded: batches here are too small for it.
    """

    def __init__(self, inside: int, out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        middle = inside * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inside, middle, 1), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(middle, middle, kernel, stride, kernel // 2, groups=middle),
            nn.ReLU6(inplace=True),
            nn.Conv2d(middle, out, 1),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Lite0Trunk(nn.Module):
    """[B, 3, H, W] -> features at strides 4, 8, 16: [B, 24, ...], [B, 40, ...], [B, 112, ...]."""

    channels = (24, 40, 112)
    strides = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6(inplace=True))
        groups, width = [], 32
        for expansion, out, depth, stride, kernel in LITE0_GROUPS:
            blocks = []
            for index in range(depth):
                blocks.append(InvertedResidual(width, out, expansion, stride if index == 0 else 1, kernel))
                width = out
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.ModuleList(groups)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        seen = []
        for group in self.groups:
            x = group(x)
            seen.append(x)
        return [seen[1], seen[2], seen[4]]

    def convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


TRUNKS: dict[str, type[VggTrunk] | type[Lite0Trunk]] = {"vgg": VggTrunk, "lite0": Lite0Trunk}


class SideOutputNetwork(nn.Module):
    """Probability maps of every side output and of their fusion.

    trunk   "vgg" or "lite0"
    sides   how many of the deepest stages have an output: 3, or 1 for plain multiple-instance learning
    fusion  "fixed": the weights above, or equal ones where the trunk is not VGG; "learned": softmax of free numbers
    """

    def __init__(
        self, trunk: str = "vgg", *, sides: int = 3, fusion: str = "fixed", start_bias: float = START_BIAS
    ) -> None:
        super().__init__()
        self.trunk = TRUNKS[trunk]()
        self.sides = sides
        channels = self.trunk.channels[-sides:]
        self.outputs = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in channels)
        for output in self.outputs:
            convolution = cast(nn.Conv2d, output)
            nn.init.zeros_(convolution.weight)
            nn.init.constant_(cast(Tensor, convolution.bias), start_bias)
        fixed = torch.tensor(FIXED_FUSION[-sides:] if trunk == "vgg" else [1.0] * sides)
        start = (fixed / fixed.sum()).log()
        self.scales = FEATURE_SCALE[trunk][-sides:]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        if fusion == "learned":
            self.fusion = nn.Parameter(start)
        else:
            self.register_buffer("fusion", start)

    @property
    def stride(self) -> int:
        """Height and width of an input must be multiples of it."""
        return self.trunk.strides[-1]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Images [B, H, W, 3] in [0, 255] -> probabilities [B, H, W] of each side output, shallow first, then fused."""
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        features = self.trunk(x)[-self.sides :]
        sides = []
        strides = self.trunk.strides[-self.sides :]
        for feature, output, scale, stride in zip(features, self.outputs, self.scales, strides, strict=True):
            logit = output(feature / scale).float()
            if stride > 1:
                logit = F.interpolate(logit, scale_factor=float(stride), mode="bilinear", align_corners=False)
            sides.append(torch.sigmoid(logit[:, 0]))
        if self.sides == 1:
            return sides
        weights = cast(Tensor, self.fusion).softmax(0)
        fused = sum((w * p for w, p in zip(weights, sides, strict=True)), torch.zeros_like(sides[0]))
        return [*sides, fused]

    def forward(self, images: Tensor) -> Tensor:
        """The fused map [B, H, W] alone: what is exported."""
        return self.maps(images)[-1]

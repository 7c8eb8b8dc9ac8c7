"""The network: a trunk of convolutions, a side output on each of three stages, and their fusion.

    image [B, H, W, 3] in [0, 255] -> trunk -> features of each stage -> logits, upsampled -> sigmoid -> p_t [B, h, w]
    p_f = sum_t w_t p_t

Maps have the resolution of the shallowest side output (h = H / map_stride); the fused one is upsampled to the image at
the end. Trunks: `vgg`, the first three stages of VGG-16 (Simonyan & Zisserman 2015; side outputs after HED, Xie & Tu 2015),
strides 1, 2, 4; `vgg16`, all five of its stages, with outputs on the last three; and `lite0`, the first five groups of
EfficientNet-Lite0 (Tan & Le 2019), with outputs at strides 4 (its mean over 2 x 2), 8 and 16. A side output reads the last
convolution of its stage: by one 1x1 convolution (width 0, as DWS-MIL has it, Jia et al., TMI 2017), or by a head of 1x1, 3x3
and 1x1 convolutions with `width` channels, which can learn on top of a trunk that stays as it was pretrained.

The image's own normalisation is the first operation of the network, so that no caller can get it wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tamis.errors import UsageError

MEAN = (123.68, 116.779, 103.939)
"""RGB mean of ImageNet that VGG-16 was trained with, on [0, 255]."""
STD = (58.395, 57.12, 57.375)
START_BIAS = -2.0
"""Of every side output: maps start at sigmoid(-2) = 0.12. With 0.5 everywhere, the generalised mean is already far
above 1/2 on every image and the constrained loss first falls by filling positives whole, which it then never leaves."""

VGG_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FIXED_FUSION = (0.2, 0.35, 0.45)
FUSIONS = ("fixed", "learned", "joint")
FEATURE_SCALE = {"vgg": (60.0, 10.0, 6.0), "vgg16": (6.0, 2.0, 3.5), "lite0": (8.0, 6.0, 4.0)}
"""Mean activation of each stage as pretrained, on H&E. Side outputs read features divided by it: otherwise one step of
Adam moves the logits of the first stage by ten times as much as those of the third."""

PLAIN_GAIN = 10.0
"""Of what 1x1 side outputs read: a step of Adam is of one size in every weight, so they learn ten times as fast as a trunk
that must not be torn from what it was pretrained to."""


class VggTrunk(nn.Module):
    """conv1_1 ... conv3_3: [B, 3, H, W] -> features [B, 64, H, W], [B, 128, H/2, W/2], [B, 256, H/4, W/4]."""

    channels: tuple[int, ...] = (64, 128, 256)
    strides: tuple[int, ...] = (1, 2, 4)
    depth = 3

    def __init__(self) -> None:
        super().__init__()
        stages, width = [], 3
        for index, widths in enumerate(VGG_STAGES[: self.depth]):
            layers: list[nn.Module] = [] if index == 0 else [nn.MaxPool2d(2)]
            for out in widths:
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(inplace=True)]
                width = out
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor, stages: int = 3) -> list[Tensor]:
        """Features of the first `stages` stages."""
        features = []
        for stage in self.stages[:stages]:
            x = stage(x)
            features.append(x)
        return features

    def finish(self, seen: list[Tensor]) -> list[Tensor]:
        """Features of the first stages -> of all."""
        features = list(seen)
        for stage in self.stages[len(seen) :]:
            features.append(stage(features[-1]))
        return features

    def freeze(self, stages: int) -> None:
        """Leave the first `stages` stages as they are in training."""
        self.stages[:stages].requires_grad_(False)

    def convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


class Vgg16Trunk(VggTrunk):
    """conv1_1 ... conv5_3: [B, 3, H, W] -> features [B, 256, H/8, W/8] (of stride 4, averaged), [B, 512, H/8, W/8],
    [B, 512, H/16, W/16].

    Deeper than DWS-MIL goes, whose three stages see 40 pixels: what a trunk that is not trained needs to tell the bags.
    """

    channels = (256, 512, 512)
    strides = (8, 8, 16)
    depth = 5

    def forward(self, x: Tensor, stages: int = 3) -> list[Tensor]:
        """All features, whatever `stages`: the first of them is not what the next stage goes on from."""
        deep = super().forward(x, self.depth)
        return [F.avg_pool2d(deep[2], 2), deep[3], deep[4]]

    def finish(self, seen: list[Tensor]) -> list[Tensor]:
        return seen

    def freeze(self, stages: int) -> None:
        """Leave the trunk as it is in training: all of it or nothing."""
        if 0 < stages < len(self.strides):
            raise UsageError("kept_stages goes with trunk=vgg; trunk=vgg16 is frozen whole or trained whole.")
        self.requires_grad_(not stages)


# EfficientNet-Lite0 (the EfficientNet without squeeze-and-excitation, with ReLU6): expansion, width, depth, stride and
# kernel of each group of inverted residuals.
LITE0_GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads "same" on even sizes: with stride 2, one more behind than before."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)
        before = (kernel - stride) // 2
        self.pad = (before, kernel - stride - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.stride[0] == 1 else F.pad(x, self.pad))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; added to its input where shapes allow.

    Batch normalisation is folded into the convolutions when the weights are loaded: batches here are too small for it.
    """

    def __init__(self, inside: int, out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        middle = inside * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [SameConv2d(inside, middle, 1), nn.ReLU6(inplace=True)]
        layers += [
            SameConv2d(middle, middle, kernel, stride, groups=middle),
            nn.ReLU6(inplace=True),
            SameConv2d(middle, out, 1),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.layers(x)
        return x + seen if self.residual else seen


class Lite0Trunk(nn.Module):
    """[B, 3, H, W] -> features [B, 24, H/8, W/8] (of stride 4, averaged), [B, 40, H/8, W/8], [B, 112, H/16, W/16].

    Stride 32 is left out: what sees that far knows the kind of image anywhere in it, and the map loses the glands.
    """

    channels = (24, 40, 112)
    strides = (8, 8, 16)
    # "Same" padding alone would put the centre of a feature of stride s behind the middle of its s x s pixels, by (s - 1) / 2.
    # The trained kernels take most of that back: centroids of the squared gradient, on H&E, lie 0.9, 0.0 and 1.2 pixels
    # behind. So the image is moved by one pixel.
    lead = 1

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(3, 32, 3, 2), nn.ReLU6(inplace=True))
        groups, width = [], 32
        for expansion, out, depth, stride, kernel in LITE0_GROUPS:
            blocks = []
            for index in range(depth):
                blocks.append(InvertedResidual(width, out, expansion, stride if index == 0 else 1, kernel))
                width = out
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.ModuleList(groups)

    def forward(self, x: Tensor, stages: int = 3) -> list[Tensor]:
        """All features, whatever `stages`: outputs are not what its groups go on from."""
        x = F.pad(x, (self.lead, 0, self.lead, 0), mode="replicate")[..., : x.shape[2], : x.shape[3]]
        x = self.stem(x)
        seen = []
        for group in self.groups:
            x = group(x)
            seen.append(x)
        return [F.avg_pool2d(seen[1], 2), seen[2], seen[4]]

    def finish(self, seen: list[Tensor]) -> list[Tensor]:
        return seen

    def freeze(self, stages: int) -> None:
        """Leave the trunk as it is in training: all of it or nothing."""
        if 0 < stages < len(self.strides):
            raise UsageError(
                "kept_stages goes with trunk=vgg; the light trunk is frozen whole or trained whole."
            )
        self.requires_grad_(not stages)

    def convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


TRUNKS: dict[str, type[VggTrunk] | type[Lite0Trunk]] = {
    "vgg": VggTrunk,
    "vgg16": Vgg16Trunk,
    "lite0": Lite0Trunk,
}


def side_output(channels: int, width: int, start_bias: float) -> nn.Sequential:
    """Features -> logits [B, 1, h, w], everywhere `start_bias` before training."""
    layers: list[nn.Module] = []
    if width:
        layers = [nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        channels = width
    last = nn.Conv2d(channels, 1, 1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.constant_(last.bias, start_bias)
    return nn.Sequential(*layers, last)


class SideOutputNetwork(nn.Module):
    """Probability maps of every side output and of their fusion.

    trunk   "vgg", "vgg16" or "lite0"
    sides   how many of the deepest stages have an output: 3, or 1 for plain multiple-instance learning
    width   of the heads; 0 for plain 1x1 convolutions
    fusion  "fixed": the weights above; "learned": softmax of free numbers that start there; "joint": a head of its own
            that reads the hidden channels of all side outputs, so that what one sees can qualify what another sees
    """

    def __init__(
        self,
        trunk: str = "vgg",
        *,
        sides: int = 3,
        width: int = 0,
        fusion: str = "fixed",
        start_bias: float = START_BIAS,
    ) -> None:
        super().__init__()
        self.trunk = TRUNKS[trunk]()
        self.sides = sides
        self.kept = 0  # first stages that are not trained: see `keep`
        self.outputs = nn.ModuleList(side_output(c, width, start_bias) for c in self.trunk.channels[-sides:])
        self.scales = [scale / (1 if width else PLAIN_GAIN) for scale in FEATURE_SCALE[trunk][-sides:]]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.register_buffer("offset", torch.zeros(()))  # added to the fused logits: see `calibrate` in train
        fixed = torch.tensor(FIXED_FUSION[-sides:])
        start = (fixed / fixed.sum()).log()
        if fusion == "learned":
            self.fusion = nn.Parameter(start)
        else:
            self.register_buffer("fusion", start)
        self.joint: nn.Sequential | None = None
        if fusion == "joint" and sides > 1:
            if not width:
                raise UsageError("fusion=joint reads the heads' hidden channels: set width above 0 with it.")
            self.joint = side_output(sides * width, width, start_bias)

    @property
    def stride(self) -> int:
        """Height and width of an input must be multiples of it."""
        return self.trunk.strides[-1]

    @property
    def map_stride(self) -> int:
        """Image pixels that a pixel of the maps is wide."""
        return self.trunk.strides[0]

    def keep(self, stages: int) -> None:
        """Freeze the first `stages` stages of the trunk: `begin` computes them alone, `finish` the others."""
        self.kept = stages
        self.trunk.freeze(stages)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images [B, H, W, 3] in [0, 255] -> what each side output reads, shallow first, of the order of 1."""
        return self._scaled(self.trunk(self._normalised(images)))

    def begin(self, images: Tensor) -> list[Tensor]:
        """Images -> what the frozen stages make of them; all stages, where none is frozen."""
        return self.trunk(self._normalised(images), self.kept or len(self.trunk.strides))

    def finish(self, begun: list[Tensor]) -> list[Tensor]:
        """What `begin` made -> features."""
        return self._scaled(self.trunk.finish(begun))

    def _normalised(self, images: Tensor) -> Tensor:
        x = (images.permute(0, 3, 1, 2).float() - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        return x.contiguous(memory_format=torch.channels_last)

    def _scaled(self, features: list[Tensor]) -> list[Tensor]:
        return [f / scale for f, scale in zip(features[-self.sides :], self.scales, strict=True)]

    def maps(self, features: list[Tensor]) -> list[Tensor]:
        """Features -> probabilities [B, h, w] of each side output, shallow first, then fused."""
        sides, hidden = [], []
        strides = self.trunk.strides[-self.sides :]
        for feature, output, stride in zip(features, self.outputs, strides, strict=True):
            head = cast(nn.Sequential, output)
            seen = head[:-1](feature)
            sides.append(torch.sigmoid(self._at_map_size(head[-1](seen).float(), stride)[:, 0]))
            if self.joint is not None:
                hidden.append(self._at_map_size(seen, stride))
        if self.sides == 1:
            return sides
        if self.joint is not None:
            return [*sides, torch.sigmoid(self.joint(torch.cat(hidden, 1)).float()[:, 0])]
        weights = cast(Tensor, self.fusion).softmax(0)
        fused = weights[0] * sides[0]
        for index in range(1, self.sides):
            fused = fused + weights[index] * sides[index]
        return [*sides, fused]

    def _at_map_size(self, plane: Tensor, stride: int) -> Tensor:
        if stride == self.map_stride:
            return plane
        factor = float(stride // self.map_stride)
        return F.interpolate(plane, scale_factor=factor, mode="bilinear", align_corners=False)

    def calibrated(self, fused: Tensor) -> Tensor:
        """Probabilities whose logits are moved by `offset`."""
        inside = fused.clamp(1e-6, 1 - 1e-6)
        return torch.sigmoid(inside.log() - (1 - inside).log() + cast(Tensor, self.offset))

    def fused(self, features: list[Tensor]) -> Tensor:
        """Features -> the calibrated fused map [B, h, w]."""
        return self.calibrated(self.maps(features)[-1])

    def at_image_size(self, fused: Tensor) -> Tensor:
        """[B, h, w] -> [B, H, W]."""
        if self.map_stride == 1:
            return fused
        size = float(self.map_stride)
        return F.interpolate(fused[:, None], scale_factor=size, mode="bilinear", align_corners=False)[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """The fused map [B, H, W] alone, calibrated, at the size of the images: what is exported."""
        return self.at_image_size(self.fused(self.features(images)))


class Mean(nn.Module):
    """The mean of several networks that were trained on one frozen trunk: it runs once, their heads one after another."""

    def __init__(self, networks: Sequence[SideOutputNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)

    @property
    def stride(self) -> int:
        return cast(SideOutputNetwork, self.members[0]).stride

    def forward(self, images: Tensor) -> Tensor:
        """[B, H, W, 3] in [0, 255] -> [B, H, W]."""
        first = cast(SideOutputNetwork, self.members[0])
        features = first.features(images)
        fused = torch.stack([cast(SideOutputNetwork, member).fused(features) for member in self.members])
        return first.at_image_size(fused.mean(0))

"""The character CNNs: three designs, one contract, one shared matrix of class vectors. Training only (PyTorch).

Each trunk reads a strip [B, 2, 40, W] and looks at every STRIDE px along the line, fully convolutionally, so that all
cut positions share their work. Per position it gives a feature vector and a state: outside the text, the centre of a
character, another part of one, or a space. A linear head turns features into classes; Hangul syllables are composed of
three small heads (lead, vowel, tail), which covers all 11,172 of them with 68 outputs.

The three trunks share the head, so the ensemble averages feature vectors: its class score is the mean of the members'
class scores, at the price of one head.

Shapes: B strips, W px wide, T = W / STRIDE positions, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tamis.subtitles.characters import HANGUL_PARTS, base_classes

FEATURES = 192
WIDE = 224  # channels once the rows are folded away
STATES = ("outside", "centre", "part", "space")


def _conv(
    i: int, o: int, kernel: int | tuple[int, int] = 3, stride: int | tuple[int, int] = 1
) -> nn.Sequential:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (0 if sides[0] == 5 and sides[1] == 1 else sides[0] // 2, sides[1] // 2)
    return nn.Sequential(
        nn.Conv2d(i, o, kernel, stride, padding, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two 3x3 convolutions and an identity (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Dense(nn.Module):
    """Layers that each see all earlier ones (Huang et al. 2017), with 1x1 bottlenecks."""

    def __init__(self, width: int, growth: int, layers: int, neck: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(_conv(width + i * growth, neck, 1), _conv(neck, growth)) for i in range(layers)
        )
        self.width = width + layers * growth

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def vgg() -> nn.Sequential:
    """Plain 3x3 convolutions and pooling (Simonyan & Zisserman 2015). 40 rows -> 20 -> 10 -> 5 -> 1."""
    return nn.Sequential(
        _conv(2, 24, 5, 2), _conv(24, 32), nn.MaxPool2d(2),
        _conv(32, 64), _conv(64, 80), nn.MaxPool2d((2, 1)),
        _conv(80, 112), _conv(112, WIDE, (5, 1)), _conv(WIDE, WIDE, (1, 3)),
    )  # fmt: skip


def residual() -> nn.Sequential:
    """Strided convolutions and residual blocks; wider context along the line than `vgg`."""
    return nn.Sequential(
        _conv(2, 24, 5, 2), _conv(24, 48, 3, 2), Residual(48), Residual(48),
        _conv(48, 96, 3, (2, 1)), _conv(96, 96), _conv(96, WIDE, (5, 1)), _conv(WIDE, WIDE, (1, 5)),
    )  # fmt: skip


def dense() -> nn.Sequential:
    """Densely connected blocks: features of every depth reach the end."""
    first, second = Dense(32, 16, 5, 48), Dense(80, 20, 4, 48)
    return nn.Sequential(
        _conv(2, 24, 3, 2), _conv(24, 32), nn.AvgPool2d(2),
        first, _conv(first.width, 80, 1), nn.AvgPool2d((2, 1)),
        second, _conv(second.width, WIDE, (5, 1)), _conv(WIDE, WIDE, (1, 3)),
    )  # fmt: skip


DESIGNS: dict[str, Callable[[], nn.Sequential]] = {"vgg": vgg, "residual": residual, "dense": dense}


class Trunk(nn.Module):
    """One member: strip -> (features [B, F, T], state logits [B, 4, T])."""

    def __init__(self, design: str) -> None:
        super().__init__()
        self.body = DESIGNS[design]()
        self.features = nn.Sequential(nn.Conv1d(WIDE, FEATURES, 1, bias=False), nn.BatchNorm1d(FEATURES))
        self.state = nn.Conv1d(WIDE, len(STATES), 3, padding=1)

    def forward(self, strip: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body((strip - 0.5) * 2).squeeze(2)  # (B, WIDE, T)
        return self.features(x), self.state(x)


class Head(nn.Module):
    """Class scores of feature vectors: [n, F] -> base classes [n, C + 1] (last: any Hangul) and parts [n, 68]."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(FEATURES, len(base_classes()) + 1)
        self.parts = nn.Linear(FEATURES, sum(HANGUL_PARTS))
        nn.init.normal_(self.base.weight, std=0.05)
        nn.init.zeros_(self.base.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.base(features), self.parts(features)


class Recogniser(nn.Module):
    """A trunk with the head, for training. `half_precision` computes the trunk, and only it, in bfloat16."""

    def __init__(self, design: str, *, freeze_head: bool = False, half_precision: bool = False) -> None:
        super().__init__()
        self.half_precision = half_precision
        self.trunk = Trunk(design)
        self.head = Head()
        if freeze_head:
            self.head.requires_grad_(False)


@dataclass(frozen=True)
class Targets:
    """What a batch of strips shows.

    state [B, T] int64; and for each of the N labelled characters: strip [N], position [N], base class [N] (Hangul: C),
    parts [N, 3] (-1 unless Hangul).
    """

    state: Tensor
    strip: Tensor
    position: Tensor
    base: Tensor
    parts: Tensor


def recognition_loss(model: nn.Module, batch: tuple[Tensor, Targets]) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the state at every position and of the class at every character's centre."""
    assert isinstance(model, Recogniser)
    strips, targets = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=model.half_precision):
        features, states = model.trunk(strips)
    state_loss = nn.functional.cross_entropy(states.float(), targets.state)
    chosen = features[targets.strip, :, targets.position].float()  # (N, F)
    class_loss, accuracy = classification_loss(model.head, chosen, targets.base, targets.parts)
    extra = {"class_loss": class_loss.item(), "state_loss": state_loss.item(), "accuracy": accuracy}
    return class_loss + 2.0 * state_loss, extra


def classification_loss(head: Head, features: Tensor, base: Tensor, parts: Tensor) -> tuple[Tensor, float]:
    """Mean cross-entropy of the classes of `features` [N, F], and the share that is right.

    base [N] classes (Hangul: C), parts [N, 3] (-1 unless Hangul), as in `Targets`.
    """
    scores, part_scores = head(features)
    loss = nn.functional.cross_entropy(scores, base)
    right = scores.argmax(1) == base
    is_hangul = parts[:, 0] >= 0
    if is_hangul.any():
        hits = torch.ones_like(right[is_hangul])
        part_loss = loss.new_zeros(())
        for i, logits in enumerate(part_scores[is_hangul].split(HANGUL_PARTS, 1)):
            part_loss = part_loss + nn.functional.cross_entropy(logits, parts[is_hangul, i])
            hits &= logits.argmax(1) == parts[is_hangul, i]
        right[is_hangul] &= hits
        loss = loss + is_hangul.float().mean() * part_loss
    return loss, right.float().mean().item()

"""What the network is trained to: bags right (multiple-instance loss), areas right (constraint), or pixels right.

Each term applies to every side output and to the fusion, and the terms are summed:

    l_mil,t = BCE(Y, P_t)                    P_t = pooling of p_t over the image
    l_area,t = [Y = 1] eta_t d(v_t, a)^2     v_t = mean of p_t; d = distance of v_t to the area a, or to its interval
    l_pixel,t = mean BCE(truth, p_t)         full supervision, the upper bound

With d to an interval [low, high], a rough answer such as "between a fifth and a half" costs nothing anywhere inside it,
and an exact area is the interval of length zero (Jia et al., TMI 2017, for that case). On negatives the bag loss alone
drives every pixel to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tamis.pooling import EPSILON, POOLINGS, mean

AREA_WEIGHTS = (2.5, 5.0, 10.0)
"""eta of the side outputs, shallow first; the fusion has FUSION_AREA_WEIGHT. (TMI 2017 by way of later code.)"""
FUSION_AREA_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class Bags:
    """One batch. All tensors share B."""

    images: Tensor | None
    """[B, H, W, 3] in [0, 255]; None where the features are there already."""
    features: list[Tensor] | None
    """What a trunk that is not trained made of the images, [B, C, h, w] a stage."""
    inside: Tensor
    """[B, h, w] bool, at the size of the maps: false in the padding."""
    positive: Tensor
    """[B] float, 0 or 1."""
    area_low: Tensor
    """[B] in [0, 1]; NaN where no area is known."""
    area_high: Tensor
    truth: Tensor | None = None
    """[B, h, w] in [0, 1], for full supervision alone."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Which terms count."""

    mil: bool = True
    area: bool = True
    pixels: bool = False
    pooling: str = "generalised_mean"
    r: float = 4.0
    """Of generalised mean and log-sum-exp."""
    share: float = 0.1
    """Of the top means."""
    area_scale: float = 1.0
    """Multiplies every eta."""


def objective_loss(
    maps: Sequence[Tensor], bags: Bags, objective: Objective
) -> tuple[Tensor, dict[str, float]]:
    """Sum over all maps ([B, h, w] each, fusion last) of the terms of `objective`, averaged over the batch."""
    pool = _pooling(objective)
    etas = _area_weights(len(maps))
    zero = maps[-1].new_zeros(())
    mil, area, pixels = zero, zero, zero
    for p, eta in zip(maps, etas, strict=True):
        if objective.mil:
            mil = mil + bag_loss(pool(p, bags.inside), bags.positive)
        if objective.area:
            area = area + objective.area_scale * eta * area_loss(mean(p, bags.inside), bags)
        if objective.pixels:
            pixels = pixels + pixel_loss(p, bags)
    numbers = {"mil": float(mil.detach()), "area": float(area.detach()), "pixels": float(pixels.detach())}
    return mil + area + pixels, numbers


def bag_loss(bag: Tensor, positive: Tensor) -> Tensor:
    """BCE of bag probabilities [B] against labels [B]."""
    return F.binary_cross_entropy(bag.clamp(EPSILON, 1 - EPSILON), positive)


def area_loss(v: Tensor, bags: Bags) -> Tensor:
    """Mean over the batch of the squared distance of v [B] to its interval; exactly 0 on negatives and unknown areas."""
    known = (bags.positive > 0) & ~bags.area_low.isnan()
    low, high = (
        bags.area_low.nan_to_num(0.0),
        bags.area_high.nan_to_num(1.0),
    )  # a NaN would reach the gradient
    below, above = F.relu(low - v), F.relu(v - high)
    return torch.where(known, below + above, torch.zeros_like(v)).square().mean()


def pixel_loss(p: Tensor, bags: Bags) -> Tensor:
    """Mean BCE over the pixels inside."""
    assert bags.truth is not None, "full supervision needs masks"
    losses = F.binary_cross_entropy(p.clamp(EPSILON, 1 - EPSILON), bags.truth, reduction="none")
    return mean(losses, bags.inside).mean()


def _pooling(objective: Objective) -> partial[Tensor]:
    settings = {
        "generalised_mean": {"r": objective.r},
        "log_sum_exp": {"r": objective.r},
        "top_mean": {"share": objective.share},
        "statistical_top_mean": {"share": objective.share},
    }
    return partial(POOLINGS[objective.pooling], **settings.get(objective.pooling, {}))


def _area_weights(maps: int) -> tuple[float, ...]:
    """One output alone is its own fusion."""
    return (FUSION_AREA_WEIGHT,) if maps == 1 else (*AREA_WEIGHTS[-(maps - 1) :], FUSION_AREA_WEIGHT)

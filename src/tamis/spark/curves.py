"""Loss and activity over a training run, as a picture. Light until `draw` runs."""

from __future__ import annotations

import json
from pathlib import Path

from tamis.writing import replacing


def draw(metrics: Path, picture: Path) -> None:
    """Two panels from metrics.jsonl: loss (training, development), and active share and attended keys per layer."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    training = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    dev = [line for line in lines if "dev_loss" in line]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(*zip(*training, strict=True), color="0.6", lw=0.8, label="training")
    if dev:
        steps = [line["step"] for line in dev]
        left.plot(steps, [line["dev_loss"] for line in dev], "o-", ms=3, label="development")
        layers = sorted(
            int(name.removeprefix("active_share_")) for name in dev[0] if name.startswith("active_share_")
        )
        for layer in layers:
            share = [100 * line[f"active_share_{layer}"] for line in dev]
            right.plot(steps, share, "o-", ms=3, label=f"layer {layer}")
        right.set(
            xlabel="step", ylabel="active neurons, % of the layer", title="FFN neurons that are not zero"
        )
        right.set_ylim(bottom=0)
        right.legend()
    left.set(xlabel="step", ylabel="nats a token", title="Loss")
    left.legend()
    with replacing(picture) as beside:
        figure.savefig(beside, dpi=120)
    plt.close(figure)

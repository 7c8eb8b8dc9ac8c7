"""Loss and activity over a training run, as a picture. Light until `draw` runs."""

from __future__ import annotations

import json
from pathlib import Path

from tamis.writing import replacing


def draw(metrics: Path, picture: Path) -> None:
    """Three panels from metrics.jsonl: loss (training, development), active share and attended keys per layer.

    Nothing is drawn of a run that was stopped before its first line.
    """
    if not metrics.exists():
        return
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    training = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    dev = [line for line in lines if "dev_loss" in line]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    left.plot(*zip(*training, strict=True), color="0.6", lw=0.8, label="training")
    if dev:
        steps = [line["step"] for line in dev]
        left.plot(steps, [line["dev_loss"] for line in dev], "o-", ms=3, label="development")
        for panel, prefix, scale in ((middle, "active_share_", 100), (right, "attended_", 1)):
            for layer in sorted(int(name.removeprefix(prefix)) for name in dev[0] if name.startswith(prefix)):
                values = [scale * line[f"{prefix}{layer}"] for line in dev]
                panel.plot(steps, values, "o-", ms=3, label=f"layer {layer}")
            panel.set_ylim(0, 1.05 * panel.get_ylim()[1])
            if panel.lines:
                panel.legend()
    left.set(xlabel="step", ylabel="nats a token", title="Loss")
    left.legend()
    middle.set(xlabel="step", ylabel="active neurons, % of the layer", title="FFN neurons that are not zero")
    right.set(
        xlabel="step", ylabel="keys a query head, mean", title="Keys attended where more than k are visible"
    )
    with replacing(picture) as beside:
        figure.savefig(beside, dpi=120)
    plt.close(figure)

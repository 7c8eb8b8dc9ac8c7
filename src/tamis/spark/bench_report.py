"""The records of `tamis spark bench` as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tamis.errors import MissingExtraError
from tamis.writing import replacing

COLUMNS = (
    ("part", "part", 12),
    ("arm", "arm", 32),
    ("context", "context", 8),
    ("ms_per_token", "ms/token", 10),
    ("cpu_ms_per_token", "CPU ms", 9),
    ("gb_per_s", "GB/s", 7),
    ("read_gb_per_s", "read", 7),
    ("ratio_to_dense", "ratio", 7),
    ("cpu_ratio_to_dense", "CPU", 7),
    ("limit", "limit", 7),
)


def table(records: Sequence[dict[str, Any]]) -> str:
    """ratio: dense ms / this arm's ms, median over rounds; CPU: the same of processor time; limit: of bytes read."""
    lines = [
        "".join(
            f"{title:>{width}}" if i > 1 else f"{title:<{width}}"
            for i, (_, title, width) in enumerate(COLUMNS)
        )
    ]
    for record in records:
        cells = []
        for i, (name, _, width) in enumerate(COLUMNS):
            value = record.get(name)
            text = "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
            cells.append(f"{text:>{width}}" if i > 1 else f"{text:<{width}}")
        lines.append("".join(cells))
    return "\n".join(lines)


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Milliseconds per token by context, and the ratio of Spark to dense with its byte limit."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "spark") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = [r for r in records if r["part"] in ("model", "llama.cpp")]
    ratios = [r for r in records if r["limit"] is not None and not r["arm"].startswith(("dense", "llama"))]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    colours = {"dense": "#8a8f98", "spark": "#d9480f", "llama.cpp": "#1c7ed6"}
    for arm in dict.fromkeys(r["arm"] for r in models):
        mine = [r for r in models if r["arm"] == arm]
        kind = arm.split()[0]
        left.plot(
            [str(r["context"]) for r in mine], [r["ms_per_token"] for r in mine], marker="o", label=arm,
            color=colours.get(kind, "black"), linestyle="-" if "int8" not in arm and "Q8" not in arm else "--",
        )  # fmt: skip
    left.set(
        xlabel="context, tokens", ylabel="ms per token", title="Whole model, one sequence", ylim=(0, None)
    )
    if models:
        left.legend(frameon=False)
    places = range(len(ratios))
    right.barh(places, [r["ratio_to_dense"] for r in ratios], color=colours["spark"], label="measured")
    right.scatter(
        [r["limit"] for r in ratios], places, marker="|", s=90, color="black", label="byte limit", zorder=3
    )
    right.axvline(1, color="#8a8f98", linewidth=0.8)
    right.set(title="Dense time / Spark time", xlabel="ratio")
    names = [f"{r['part']}, {r['arm'].removeprefix('spark ')}, {r['context']}" for r in ratios]
    right.set_yticks(list(places), names, fontsize=7)
    right.invert_yaxis()
    right.legend(frameon=False, loc="lower right")
    if records:
        figure.suptitle(
            f"{records[0]['threads']} threads, medians of {records[0]['rounds']} interleaved rounds",
            fontsize=9,
        )
    with replacing(path) as beside:
        figure.savefig(beside, dpi=150)
    pyplot.close(figure)

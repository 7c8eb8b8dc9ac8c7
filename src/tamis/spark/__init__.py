"""Train a Spark Transformer and decode with it on a CPU.

from tamis.spark import generate
text = generate("model.spark", "The city", max_tokens=20)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["generate"]


def generate(
    model: str | Path,
    prompt: str,
    *,
    max_tokens: int = 128,
    stop: Sequence[str] = (),
    dtype: str | None = None,
    context: int | None = None,
    threads: int | None = None,
    **sampling: Any,
) -> str:
    """What follows the prompt. Opens the model for this one text; `tamis.spark.engine.Engine` keeps it open for more.

    model     a packed file, a checkpoint folder, or the name of the model that ships, "spark-1m.text-en"
    stop      texts to end before
    dtype     of a checkpoint folder's weights: bf16 unless said, f32 or int8
    context   most tokens of prompt and continuation; threads: by default all cores
    sampling  temperature (0: the likeliest token), top_k, top_p, seed

    Raises InputError for what cannot be read or continued, UsageError for settings that cannot be.
    """
    from tamis.spark.engine import Engine
    from tamis.spark.published import named

    with Engine.open(named(Path(model)), dtype=dtype, context=context, threads=threads) as engine:
        return engine.generate(prompt, max_tokens=max_tokens, stop=stop, **sampling).text

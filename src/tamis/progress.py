"""A progress bar on stderr: only on a terminal, and only for what takes longer than two seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType

PATIENCE_S = 2.0
REDRAW_S = 0.2
WIDTH = 30


class Progress:
    """with Progress("film.mp4") as bar: bar(0.25)

    Called with the share that is done, in [0, 1]. The bar is wiped at the end, and whenever `line` prints something.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.started = self.drawn = time.monotonic()
        self.shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.started < PATIENCE_S or now - self.drawn < REDRAW_S or not sys.stderr.isatty():
            return
        share = min(1.0, max(0.0, share))
        bar = "#" * round(WIDTH * share)
        left = _clock((now - self.started) * (1 - share) / share) if share > 0.02 else "--:--"
        sys.stderr.write(f"\r\x1b[K{self.label} [{bar:<{WIDTH}}] {share:4.0%}, {left} left")
        sys.stderr.flush()
        self.drawn = now
        self.shown = True

    def line(self, text: str) -> None:
        """Print a line to stderr without tearing the bar."""
        self.wipe()
        print(text, file=sys.stderr)

    def wipe(self) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self.shown = False


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"

"""How many processors this process may run on.

threads = processors() // jobs
"""

from __future__ import annotations

import os


def processors() -> int:
    """At least 1. In a container or under taskset fewer than the machine has, where the system tells (Linux does)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The workers of a batch on Ray: a cluster, or this machine as one. Knows no capability.

At most `jobs` items are under way at any time, so that a folder of ten thousand slides never queues ten thousand tasks or
their results. A worker that dies takes no item with it: Ray gives the item to another once more, and what it writes
takes its final name in one step, so that nothing is lost and nothing is there twice. An item whose second worker dies as
well has failed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from tamis.batch import Item, Outcome, Work, attempt, now, state_of
from tamis.errors import InputError, MissingExtraError

LOCAL = "local"
RETRIES = 1
STARTS = 3
"""How often Ray is started on this machine: it gives itself half a minute, which a busy one may not have."""


def outcomes(items: Sequence[Item], work: Work, jobs: int, address: str) -> Generator[Outcome, None, None]:
    """Outcomes as they come. Raises InputError when there is no cluster at `address`."""
    if not items:
        return
    ray = _connected(address, jobs)
    task = ray.remote(attempt).options(num_cpus=1, max_retries=RETRIES)
    waiting: deque[Item] = deque(items)
    under_way: dict[Any, tuple[Item, str, float, list[int] | None]] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                item = waiting.popleft()
                state = state_of(item)
                under_way[task.remote(work, item)] = (item, now(), time.monotonic(), state)
            ready, _ = ray.wait(list(under_way), num_returns=1)
            for reference in ready:
                item, started, clock, state = under_way.pop(reference)
                try:
                    status, error, result = ray.get(reference)
                except ray.exceptions.RayError as fault:
                    status, error, result = "failed", _death(item, fault), {}
                yield Outcome(item, status, error, started, time.monotonic() - clock, result, state)
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _connected(address: str, jobs: int) -> Any:
    # Ray warns of its own future defaults, and reports its use over the network unless told otherwise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("ray", "cluster") from None

    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == LOCAL:
        options |= {"num_cpus": jobs, "include_dashboard": False, "address": LOCAL}
    else:
        options |= {"address": address}
    for _ in range(STARTS):
        try:
            ray.init(**options)
            return ray
        except Exception as error:  # noqa: BLE001 - some of Ray's own are bare Exceptions
            fault = error
            ray.shutdown()
        if address != LOCAL:
            raise InputError(
                f"No Ray cluster answers at {address} ({fault}): start one with  ray start --head  and give its address "
                "(ray://HOST:10001), or use --cluster local."
            )
    raise InputError(
        f"Ray was not up within its half minute, {STARTS} times ({fault}): try again when this machine is less busy, "
        "or leave --cluster out."
    )


def _death(item: Item, fault: Exception) -> str:
    return (
        f"{item.source}: the workers at work on it died, {1 + RETRIES} times ({type(fault).__name__}). "
        "The file may be damaged in an unforeseen way, or memory or the disk may have run out; try it alone with --debug."
    )

"""`tamis doctor`: what is installed, what runs natively, and whether the weights are as published."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from tamis import __version__, native
from tamis.errors import WeightsError
from tamis.processors import processors
from tamis.weights import Weights, published, read

USER_EXTRAS = ("subtitles", "slides", "spark", "train", "cluster")


@dataclass(frozen=True, slots=True)
class WeightsState:
    """One set of weights and what is wrong with it (empty: nothing)."""

    record: Weights
    bytes: int
    fault: str


def main(*, as_json: bool) -> int:
    """Print the report. Returns 0, or 1 when weights are missing or altered."""
    try:
        states, fault = [_state(record) for record in published()], ""
    except WeightsError as error:
        states, fault = [], str(error)
    if as_json:
        print(json.dumps(_record(states, fault), ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(states, fault)))
    return 1 if fault or any(state.fault for state in states) else 0


def extras() -> dict[str, dict[str, str | None]]:
    """Extra -> package -> installed version, None where it is absent. Nothing is imported."""
    found: dict[str, dict[str, str | None]] = {}
    for requirement in metadata.requires("tamis") or []:
        match = re.match(r"([A-Za-z0-9_.-]+).*extra == ['\"](\w+)['\"]", requirement)
        if match and match[1] != "tamis":
            found.setdefault(match[2], {})[match[1]] = _version(match[1])
    return found


def native_kernels() -> str:
    """Which path runs: the compiled kernels, with their instruction set, or the portable code."""
    return native.description()


def _state(record: Weights) -> WeightsState:
    try:
        return WeightsState(record, len(read(record)), "")
    except WeightsError as error:
        return WeightsState(record, 0, str(error))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: Any) -> str:
    """A score as words: one of several parts is named part by part."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_plain(part)}" for name, part in value.items())
    return str(value)


def _record(states: list[WeightsState], fault: str) -> dict[str, Any]:
    return {
        "tamis": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": processors(),
        "native_kernels": native_kernels(),
        "extras": extras(),
        "weights": [
            {
                "name": state.record.name,
                "file": state.record.file,
                "bytes": state.bytes,
                "sha256": state.record.sha256,
                "licence": state.record.licence,
                "score": dict(state.record.score),
                "fault": state.fault,
            }
            for state in states
        ],
        "fault": fault,
    }


def _lines(states: list[WeightsState], fault: str) -> list[str]:
    lines = [
        f"tamis {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"threads         {processors()}",
        f"native kernels  {native_kernels()}",
        "",
        "packages",
    ]
    for extra, packages in extras().items():
        if extra not in USER_EXTRAS:
            continue
        lines += [f"  {extra:<10} {name:<28} {version or 'absent'}" for name, version in packages.items()]
        if None in packages.values():
            lines.append(f'  {extra:<10} incomplete: pip install "tamis[{extra}]"')
    lines += ["", "weights"]
    for state in states:
        record = state.record
        capability = record.folder.parent.name
        lines.append(
            f"  {capability:<13}  {record.name:<24} {state.bytes / 1e6:6.2f} MB  {state.fault or 'as published'}"
        )
        lines += [f"    licence {record.licence}", f"    sha256 {record.sha256[:16]}..."]
        lines += [f"    {name.replace('_', ' ')}: {_plain(value)}" for name, value in record.score.items()]
    if not states:
        lines.append(f"  {fault or 'none in this installation'}")
    total = sum(state.bytes for state in states)
    return [*lines, "", f"{len(states)} sets of weights, {total / 1e6:.1f} MB together"]

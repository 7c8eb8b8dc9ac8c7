"""The compiled kernels (csrc/): where they are, and which instruction set runs.

They are one library with a C interface, loaded through ctypes, which releases the interpreter's lock during a call.
Without it (no compiler at installation) portable Python code gives the same results, slower.

TAMIS_ISA chooses a path: portable, avx2, avx512, avx512_bf16, or `none` for no compiled code at all. TAMIS_LIBRARY names
another build of the library, such as the one with sanitizers (`make check`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from tamis.errors import UsageError

ABI = 4  # TAMIS_ABI in csrc/tamis_native.h
VARIABLE = "TAMIS_ISA"
NONE = "none"
_ENDING = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
_BESIDE = Path(__file__).with_name(f"{'' if sys.platform == 'win32' else 'lib'}tamis_native.{_ENDING}")
PATH = Path(os.environ.get("TAMIS_LIBRARY") or _BESIDE)


@cache
def load(path: Path = PATH) -> ctypes.CDLL | None:
    """The library, or None where it was not built, or was built from other sources than this Python code."""
    if not path.exists():
        return None
    try:
        library = ctypes.CDLL(os.fspath(path))
        library.tamis_abi.restype = ctypes.c_int
        if library.tamis_abi() != ABI:
            return None
    except (OSError, AttributeError):
        return None
    library.tamis_isa_name.restype = ctypes.c_char_p
    library.tamis_isa_name.argtypes = [ctypes.c_int]
    library.tamis_isa_supported.restype = ctypes.c_int
    library.tamis_isa_supported.argtypes = [ctypes.c_int]
    library.tamis_isa_best.restype = ctypes.c_int
    return library


def instruction_sets() -> dict[str, bool]:
    """Name -> whether this processor runs it, slowest first; empty without the library."""
    library = load()
    found: dict[str, bool] = {}
    while library is not None and (name := library.tamis_isa_name(len(found))) is not None:
        found[name.decode()] = bool(library.tamis_isa_supported(len(found)))
    return found


def chosen(name: str | None = None) -> int | None:
    """The number of the instruction set to run: `name`, or else TAMIS_ISA, or else the best. None: no compiled code.

    Raises UsageError for a name that is unknown or that this processor lacks.
    """
    library = load()
    wanted = name or os.environ.get(VARIABLE) or ""
    if wanted == NONE:
        return None
    known = instruction_sets()
    offered = ", ".join([*(isa for isa, runs in known.items() if runs), NONE])
    if library is None:
        if wanted:
            raise UsageError(
                f"The instruction set {wanted!r} was asked for, but the compiled kernels are absent here: {absence()}."
            )
        return None
    if not wanted:
        return int(library.tamis_isa_best())
    if wanted not in known:
        raise UsageError(f"The instruction set {wanted!r} is unknown; this processor runs {offered}.")
    if not known[wanted]:
        raise UsageError(f"This processor has no {wanted}; it runs {offered}.")
    return list(known).index(wanted)


def absence() -> str:
    """Why there is no library, and what to do."""
    if PATH.exists():
        return "the library beside the package was built from other sources; install Tamis again"
    return "Tamis was installed without a C++ compiler; install one (g++ or clang++), then Tamis again"


def description() -> str:
    """For `tamis doctor`: which path runs."""
    try:
        isa = chosen()
    except UsageError as error:
        return str(error)
    if isa is not None:
        runs = [name for name, supported in instruction_sets().items() if supported]
        forced = f" (by {VARIABLE})" if os.environ.get(VARIABLE) else ""
        return f"present: {list(instruction_sets())[isa]} runs{forced}; this processor has {', '.join(runs)}"
    why = f"{VARIABLE}={NONE}" if load() is not None else absence()
    return f"absent: portable Python code runs, slower, with the same results ({why})"

"""The image kernels in compiled form (csrc/raster.inl), bound through ctypes. `raster` chooses, and defines what they do.

Calls let other threads run meanwhile. Bare pointers go across, so every function sees to types and shapes first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Ints = NDArray[np.int32]
Places = NDArray[np.intp]
Floats = NDArray[np.float32]

_POINTER, _INT, _LONG, _DOUBLE = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double
_BYTE: Any = ctypes.c_char
_PLANE = (_POINTER, _LONG)  # first pixel, bytes from row to row
_SIGNATURES: dict[str, tuple[Any, ...]] = {  # result, arguments after the instruction set
    "halve": (None, *_PLANE, _INT, _INT, _POINTER, _POINTER),
    "strokes": (_LONG, _POINTER, *[_INT] * 5, *[_POINTER] * 5),
    "pieces": (_LONG, *_PLANE, *[_INT] * 6, _POINTER, _LONG),
    "rows": (_LONG, *_PLANE, *[_INT] * 5, _DOUBLE, _POINTER, _POINTER),
    "components": (_LONG, *_PLANE, *[_INT] * 3, _POINTER, _POINTER, _LONG),
    "depth": (_LONG, _POINTER, *[_INT] * 3, _POINTER),
    "merge": (None, *[_POINTER] * 3, *[_INT] * 3, *[_POINTER] * 3),
    "blur": (None, *_PLANE, _INT, _INT, _POINTER, _INT, _POINTER),
    "resample": (None, *_PLANE, *[_INT] * 3, _POINTER, _POINTER, _INT, *[_POINTER] * 3),
    "steps": (_LONG, _POINTER, _INT, _LONG, *[_POINTER] * 9),
    "contrast": (_LONG, *_PLANE, _LONG, *[_POINTER] * 4),
}


class Kernels:
    """The kernels in one instruction set, numbered as in `native.instruction_sets`."""

    def __init__(self, library: ctypes.CDLL, isa: int) -> None:
        self._isa = isa
        self._call: dict[str, Any] = {}
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(library, f"tamis_raster_{name}")
            function.restype, function.argtypes = result, [ctypes.c_int, *arguments]
            self._call[name] = function

    def halve(self, plane: Plane, copy: Plane | None) -> Plane:
        plane = _rows(plane)
        height, width = plane.shape
        assert height % 2 == 0 and width % 2 == 0
        if copy is not None:
            assert copy.shape == plane.shape and copy.dtype == np.uint8 and copy.flags.c_contiguous
        out = np.empty((height // 2, width // 2), np.uint8)
        to = None if copy is None else _at(copy)
        self._call["halve"](self._isa, *_plane(plane), height, width, to, _at(out))
        return out

    def strokes(
        self, picture: Plane, before: bool, least: int, newest: int, planes: Sequence[Plane], newborn: Plane
    ) -> int:
        picture = np.ascontiguousarray(picture)
        height, width = picture.shape
        for plane in (*planes, newborn):
            assert plane.flags.c_contiguous and plane.dtype == np.uint8 and plane.shape == newborn.shape
        assert newborn.shape == (height - 1, width - 2)
        pointers = [_at(plane) for plane in (*planes, newborn)]
        count = self._call["strokes"](
            self._isa, _at(picture), height, width, before, least, newest, *pointers
        )
        return int(count)

    def pieces(self, plane: Plane, strength: int, least: int, run: int, smallest: int) -> list[list[int]]:
        plane = _rows(plane)
        height, width = plane.shape
        assert height >= 8 and width >= 8
        most = (height // 4) * (width // 4) // smallest + 1
        found = np.empty((most, 5), np.int32)
        count = self._call["pieces"](
            self._isa, *_plane(plane), height, width, strength, least, run, smallest, _at(found), most
        )
        return found[:count].tolist()

    def rows(
        self, plane: Plane, box: tuple[int, int, int, int], strength: int, thin: float
    ) -> list[tuple[int, int, int, int, int, float]]:
        plane = _rows(plane)
        left, top, right, bottom = box
        assert 0 <= left < right <= plane.shape[1] and 0 <= top < bottom <= plane.shape[0]
        most = (bottom - top) // 2 + 1
        lines, weights = np.empty((most, 5), np.int64), np.empty(most, np.float64)
        count = self._call["rows"](self._isa, *_plane(plane), *box, strength, thin, _at(lines), _at(weights))
        found = zip(lines[:count].tolist(), weights[:count].tolist(), strict=True)
        return [(*line, weight) for line, weight in found]

    def components(self, mask: Plane, connectivity: int) -> tuple[Ints, Ints]:
        mask = _rows(mask)
        height, width = mask.shape
        labels = np.empty((height, width), np.int32)
        stats = np.empty(((height * width + 1) // 2 + 1, 5), np.int32)
        count = self._call["components"](
            self._isa, *_plane(mask), height, width, connectivity, _at(labels), _at(stats), len(stats)
        )
        return labels, stats[:count]

    def depth(self, mask: Plane, far: int) -> tuple[int, int]:
        mask = np.ascontiguousarray(mask, np.uint8)
        count = ctypes.c_int64()
        total = self._call["depth"](self._isa, _at(mask), *mask.shape, far, ctypes.addressof(count))
        return int(total), count.value

    def merge(self, planes: Sequence[Plane], averaged: Sequence[bool]) -> tuple[Plane, Plane, Plane]:
        planes = [_rows(plane) for plane in planes]
        shape = planes[0].shape
        assert all(plane.shape == shape for plane in planes) and sum(averaged) <= 257
        pointers = np.array([_at(plane) for plane in planes], np.uintp)
        strides = np.array([plane.strides[0] for plane in planes], np.int64)
        flags = np.array(averaged, np.uint8)
        out = [np.empty(shape, np.uint8) for _ in range(3)]
        inputs = _at(pointers), _at(strides), _at(flags), len(planes)
        self._call["merge"](self._isa, *inputs, *shape, *(_at(plane) for plane in out))
        return out[0], out[1], out[2]

    def blur(self, plane: Plane, kernel: NDArray[np.uint16]) -> Plane:
        plane = _rows(plane)
        out = np.empty(plane.shape, np.uint8)
        kernel = np.ascontiguousarray(kernel, np.uint16)
        self._call["blur"](self._isa, *_plane(plane), *plane.shape, _at(kernel), len(kernel) // 2, _at(out))
        return out

    def resample(self, plane: Plane, columns: tuple[Ints, Floats], rows: tuple[Ints, Floats]) -> Plane:
        plane = _rows(plane)
        out = np.empty((len(rows[0]), len(columns[0])), np.uint8)
        tables: list[int] = []
        for (places, weights), size in zip((columns, rows), plane.shape[::-1], strict=True):
            assert places.dtype == np.int32 and places.flags.c_contiguous and places.shape == weights.shape
            assert weights.dtype == np.float32 and weights.flags.c_contiguous
            assert places.size == 0 or (places.min() >= 0 and places.max() < size)
            tables += [places.shape[1], _at(places), _at(weights)]
        self._call["resample"](self._isa, *_plane(plane), *out.shape, *tables, _at(out))
        return out

    def steps(self, picture: Plane, points: Pointers, alive: NDArray[np.bool_]) -> tuple[int, int]:
        """points: y, x, sign, step, stood, life of each. They must lie inside the picture but for its last row and last
        two columns. Returns how many are alive, and the sum of their steps."""
        assert picture.flags.c_contiguous and len(alive) == points.length
        y, x, sign, step, stood, life = points.at
        total = ctypes.c_int64()
        count = self._call["steps"](
            self._isa, _at(picture), picture.shape[1], points.length, y, x, sign, step, _at(alive), stood,
            life, None, ctypes.addressof(total),
        )  # fmt: skip
        return int(count), total.value

    def contrast(self, plane: Plane, places: Pointers) -> int:
        """places: rows and columns, then those to be taken off. They must lie inside the plane."""
        plane = _rows(plane)
        return int(self._call["contrast"](self._isa, *_plane(plane), places.length, *places.at))


class Pointers:
    """Where some arrays of one length lie; looked up again only when one of them is another object, for that takes longer
    than what is done with them."""

    def __init__(self) -> None:
        self.at: tuple[int, ...] = ()
        self.length = 0
        self._known: tuple[int, ...] = ()
        self._arrays: tuple[NDArray[Any], ...] = ()

    def of(self, *arrays: NDArray[Any]) -> Pointers:
        known = tuple(map(id, arrays))
        if known != self._known:
            self.length = len(arrays[0])
            kind = arrays[0].dtype
            for array in arrays:
                assert array.flags.c_contiguous and array.shape == (self.length,) and array.dtype == kind
            assert kind in (np.int32, np.int64)
            self._known, self._arrays, self.at = known, arrays, tuple(map(_at, arrays))
        return self


def _rows(plane: Plane) -> Plane:
    """The plane, copied only when a row does not lie in one piece or rows run backwards."""
    assert plane.ndim == 2 and plane.dtype == np.uint8
    strided = plane.strides[1] == 1 and plane.strides[0] >= plane.shape[1]
    return plane if strided else np.ascontiguousarray(plane)


def _at(array: NDArray[Any]) -> int:
    try:  # a fifth of the time that NumPy's own ways take
        return ctypes.addressof(_BYTE.from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, not in one piece, or empty
        return int(array.__array_interface__["data"][0])


def _plane(plane: Plane) -> tuple[int, int]:
    return _at(plane), plane.strides[0]

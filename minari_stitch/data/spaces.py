"""Gymnasium spaces <-> flat float vectors.

Supported are Box observations, (nested) Dicts of Boxes, and float Box actions. A Dict is flattened by key
name in alphabetical order, the order in which Minari gives the keys back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from minari_stitch.errors import InvalidDataError, UnsupportedSpaceError

_SUPPORTED = {
    "observation": "a Box, or a (nested) Dict of Boxes, that is not an image",
    "action": "a Box of floats",
}


class FlatSpace:
    """A space seen as vectors of width `size`.

    Attributes:
        space: The Gymnasium space.
        slices: "key/subkey" -> the columns of that part; a plain Box is the one part "".
        size: Width S of the flat vectors.
    """

    def __init__(self, space: spaces.Space, role: Literal["observation", "action"] = "observation") -> None:
        """Lay out `space`.

        Args:
            space: The space.
            role: Which rules apply.

        Raises:
            UnsupportedSpaceError: The space, or a part of it, cannot be stitched.
        """
        self.space = space
        self._boxes = dict(_boxes(space, role))
        self.slices: dict[str, slice] = {}
        self.size = 0
        for path, box in self._boxes.items():
            width = int(np.prod(box.shape))
            self.slices["/".join(path)] = slice(self.size, self.size + width)
            self.size += width
        if not self.size:
            raise _unsupported(space, role)

    @property
    def plane(self) -> slice | None:
        """The two columns that are a place in the plane: a task's `achieved_goal`, or all there are; else None."""
        if list(self.slices) == [""]:
            return slice(0, 2) if self.size == 2 else None
        columns = self.slices.get("achieved_goal")
        return columns if columns and "desired_goal" in self.slices and columns.stop - columns.start == 2 else None

    @cached_property
    def low(self) -> np.ndarray:
        """`(S,)` float64 lower bounds."""
        return np.concatenate([box.low.ravel().astype(np.float64) for box in self._boxes.values()])

    @cached_property
    def high(self) -> np.ndarray:
        """`(S,)` float64 upper bounds."""
        return np.concatenate([box.high.ravel().astype(np.float64) for box in self._boxes.values()])

    def flatten(self, data: Any) -> np.ndarray:
        """Flatten T points of the space.

        Args:
            data: `(T, *shape)` for a Box; a mapping of such for a Dict.

        Returns:
            `(T, S)` in the result type of the parts, at least float32; a view where nothing has to be copied.

        Raises:
            InvalidDataError: A part is missing, or has another shape or length than the space says.
        """
        parts = []
        for path, box in self._boxes.items():
            part, where = data, "".join(f"[{key!r}]" for key in path)
            for key in path:
                if not isinstance(part, Mapping) or key not in part:
                    raise InvalidDataError(f"{where or 'data'} is missing: the space has {list(self.slices)}")
                part = part[key]
            part = np.asarray(part)
            if part.ndim != len(box.shape) + 1 or part.shape[1:] != box.shape or part.dtype.kind not in "fiub":
                wanted = ", ".join(("T", *map(str, box.shape)))
                raise InvalidDataError(
                    f"{where or 'data'} has shape {part.shape} and dtype {part.dtype}, but the space wants "
                    f"numbers of shape ({wanted})"
                )
            parts.append(part.reshape(len(part), int(np.prod(box.shape))))
        if len({len(part) for part in parts}) > 1:
            lengths = {name: len(part) for name, part in zip(self.slices, parts, strict=True)}
            raise InvalidDataError(f"the parts differ in length: {lengths}")
        dtype = np.result_type(*parts)
        dtype = dtype if dtype.kind == "f" else np.result_type(dtype, np.float32)
        return parts[0].astype(dtype, copy=False) if len(parts) == 1 else np.concatenate(parts, 1, dtype=dtype)

    def unflatten(self, array: np.ndarray) -> Any:
        """Invert `flatten`.

        Args:
            array: `(T, S)`.

        Returns:
            Data of the structure, shapes and dtypes of the space. Integers are rounded and clipped to bounds.
        """
        data: Any = {}
        for (path, box), columns in zip(self._boxes.items(), self.slices.values(), strict=True):
            part = array[:, columns].reshape(len(array), *box.shape)
            if box.dtype.kind != "f":
                part = np.clip(np.rint(part), box.low, box.high)
            part = part.astype(box.dtype, copy=False)
            if not path:
                return part
            node = data
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = part
        return data


def _boxes(space: spaces.Space, role: str, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the Box of each leaf, keys in alphabetical order."""
    if isinstance(space, spaces.Dict) and role == "observation":
        for key in sorted(space.spaces):
            yield from _boxes(space.spaces[key], role, (*path, key))
    elif isinstance(space, spaces.Box) and (
        space.dtype.kind == "f" or (role == "observation" and space.dtype.kind in "iu" and len(space.shape) < 2)
    ):
        yield path, space
    else:
        raise _unsupported(space, role, path)


def _unsupported(space: spaces.Space, role: str, path: tuple[str, ...] = ()) -> UnsupportedSpaceError:
    where = f" at {'/'.join(path)!r}" if path else ""
    return UnsupportedSpaceError(
        f"The {role} space{where} is {space}, which cannot be stitched. Supported is {_SUPPORTED[role]}: "
        "choose another dataset, or rewrite this one with a wrapper of its environment."
    )

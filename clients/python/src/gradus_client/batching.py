"""Cuts trajectories into requests.

In: trajectories, and limits of count and bytes. Out: batches of encoded items with their places in the caller's list.
Groups stay whole, since a judge that ranks and `on_invalid="mean"` look at a group in one request. Knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Batch:
    """Part of a call that goes in one request."""

    places: tuple[int, ...]
    """Indices into the caller's list."""
    items: tuple[bytes, ...]
    """The trajectories as JSON, in the same order."""

    def body(self, fields: Mapping[str, Any]) -> bytes:
        """The request's body: the fields that all batches share, and the items."""
        head = encode(fields)[:-1] + (b"," if fields else b"")
        return head + b'"trajectories":[' + b",".join(self.items) + b"]}"


def encode(value: object) -> bytes:
    """JSON as UTF-8. Text that is no Unicode (half a surrogate pair) goes escaped: the server says that it is bad.
    Arrays and numbers of numpy, which data sets in Parquet hold at any depth, are lists and numbers.

    Raises `TypeError` or `ValueError` for what JSON cannot say, NaN among it.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def encode_item(trajectory: Mapping[str, Any]) -> bytes:
    """A trajectory as JSON. Arguments of native calls that JSON cannot hold, such as a NaN that a policy wrote and its
    trainer decoded, go as text: so written it is a broken call, and no reason to lose the trajectory.

    Raises as `encode`.
    """
    try:
        return encode(trajectory)
    except (TypeError, ValueError):
        for key in ("prompt", "messages"):
            trajectory = _each(trajectory, key, lambda message: _each(message, "tool_calls", _with_text))
        return encode(trajectory)


def _each(of: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """A mapping with each entry of one of its lists changed; anything else as it is."""
    entries = of.get(key) if isinstance(of, Mapping) else None
    if entries is not None and hasattr(entries, "tolist"):
        entries = entries.tolist()
    return {**of, key: [change(entry) for entry in entries]} if isinstance(entries, (list, tuple)) else of


def _with_text(call: Any) -> Any:
    """A native call whose arguments are text if JSON cannot hold them."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    try:
        encode(function.get("arguments"))
    except ValueError:
        return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], default=_plain)}}
    return call


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def encode_items(trajectories: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Each trajectory as JSON; a `TypeError` or `ValueError` names the one that is not."""
    items = []
    for place, trajectory in enumerate(trajectories):
        try:
            items.append(encode_item(trajectory))
        except (TypeError, ValueError) as error:
            raise type(error)(f"trajectories[{place}] cannot be written as JSON: {error}") from None
    return items


def batches(trajectories: Sequence[Mapping[str, Any]], max_items: int, max_bytes: int) -> list[Batch]:
    """Fills requests in the order of the list. A group, or an item, beyond the limits is a request of its own."""
    items = encode_items(trajectories)
    found: list[Batch] = []
    places: list[int] = []
    size = 0
    for unit in _units(trajectories):
        unit_size = sum(len(items[place]) + 1 for place in unit)
        if places and (len(places) + len(unit) > max_items or size + unit_size > max_bytes):
            found.append(_batch(places, items))
            places, size = [], 0
        places.extend(unit)
        size += unit_size
    if places:
        found.append(_batch(places, items))
    return found


def _batch(places: Sequence[int], items: Sequence[bytes]) -> Batch:
    in_order = tuple(sorted(places))
    return Batch(in_order, tuple(items[place] for place in in_order))


def _units(trajectories: Sequence[Mapping[str, Any]]) -> Iterator[list[int]]:
    """What must not be parted: the members of each group, and each item without one, by first occurrence."""
    units: dict[object, list[int]] = {}
    for place, trajectory in enumerate(trajectories):
        group = trajectory.get("group") if isinstance(trajectory, Mapping) else None
        key = ("item", place) if group is None else ("group", str(group))
        units.setdefault(key, []).append(place)
    yield from units.values()

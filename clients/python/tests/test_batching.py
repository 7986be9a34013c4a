"""How calls are cut into requests; no server."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gradus_client.batching import Batch, batches


def item(name: int, group: object = None, size: int = 0) -> dict[str, object]:
    return {"id": name, "group": group, "text": "x" * size}


def places(found: list[Batch]) -> list[tuple[int, ...]]:
    return [batch.places for batch in found]


def test_by_count() -> None:
    assert places(batches([item(n) for n in range(5)], 2, 1 << 20)) == [(0, 1), (2, 3), (4,)]
    assert batches([], 2, 1 << 20) == []


def test_what_json_cannot_say_is_named() -> None:
    for value in [object(), {1, 2}, float("nan")]:
        with pytest.raises((TypeError, ValueError), match=r"trajectories\[1\] cannot be written as JSON"):
            batches([item(0), {"id": value}], 2, 1 << 20)


def turn(arguments: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


def test_arguments_of_calls_that_json_cannot_say_go_as_text() -> None:
    """As a policy may write them, and its trainer decode them: a broken call, which costs what broken calls cost."""
    nan, infinite = {"x": float("nan"), "é": [1]}, {"x": np.array([np.inf])}
    found = batches([{"prompt": [turn(nan)], "messages": np.array([turn({"x": 1}), turn(infinite), 5])}], 2, 1 << 20)
    written = json.loads(found[0].items[0])
    as_text = [turn({"x": 1}), turn('{"x": [Infinity]}'), 5]
    assert written == {"prompt": [turn('{"x": NaN, "\\u00e9": [1]}')], "messages": as_text}
    for odd in (object(), [{"function": "f"}, 5], {"f": float("nan")}):
        with pytest.raises((TypeError, ValueError), match=r"trajectories\[0\] cannot be written as JSON"):
            batches([{"id": object(), "messages": [{"tool_calls": odd}]}], 2, 1 << 20)


def test_by_bytes() -> None:
    assert places(batches([item(n, size=100) for n in range(4)], 99, 300)) == [(0, 1), (2, 3)]


def test_an_item_beyond_the_limit_goes_alone() -> None:
    assert places(batches([item(0), item(1, size=900), item(2)], 99, 300)) == [(0,), (1,), (2,)]


def test_a_group_is_never_parted_even_if_its_members_are_apart() -> None:
    mixed = [item(0, "a"), item(1, "b"), item(2, "a"), item(3, "b"), item(4, "a")]
    assert places(batches(mixed, 2, 1 << 20)) == [(0, 2, 4), (1, 3)]
    assert places(batches(mixed, 5, 1 << 20)) == [(0, 1, 2, 3, 4)]


def test_a_group_named_by_a_number_and_by_its_text_is_one() -> None:
    assert places(batches([item(0, 7), item(1), item(2, "7")], 1, 1 << 20)) == [(0, 2), (1,)]


def test_a_body_is_the_shared_fields_and_the_items_of_its_batch() -> None:
    batch = batches([item(0), item(1)], 9, 1 << 20)[0]
    assert json.loads(batch.body({"rubric": "é"})) == {"rubric": "é", "trajectories": [item(0), item(1)]}
    assert json.loads(batch.body({})) == {"trajectories": [item(0), item(1)]}

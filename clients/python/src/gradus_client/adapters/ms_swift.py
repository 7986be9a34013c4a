"""ms-swift's conversations as the API takes them (read against ms-swift 4.6.0); `trl.SwiftReward` uses it.

In: `messages` of a row with its completion, with calls in messages of their own, and token ids per turn. Out: what the
policy was given, and what it wrote. Knows no reward.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import common


def parted(turns: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Prompt and completion: what the policy wrote begins after the last turn of the user."""
    conversation = _conversation(turns)
    users = [place for place, turn in enumerate(conversation) if _role(turn) == "user"]
    first = users[-1] + 1 if users else 0
    return conversation[:first], conversation[first:]


def token_ids(turns: Any) -> list[Any] | None:
    """Of all turns of a row; `None` where they were not kept. A single turn's may have no list of their own."""
    if not turns:
        return None
    return [token for turn in turns for token in (turn if isinstance(turn, Sequence) else [turn])]


def _conversation(turns: Sequence[Any]) -> list[Any]:
    """With the roles of the API: `tool_call` belongs to the assistant's turn before it, `tool_response` is `tool`."""
    found: list[Any] = []
    for turn in turns:
        role = _role(turn)
        if role == "tool_call":
            own = found.pop() if found and _role(found[-1]) == "assistant" else {"role": "assistant", "content": ""}
            call = {"type": "function", "function": _function(turn.get("content"))}
            found.append({**own, "tool_calls": [*(own.get("tool_calls") or ()), call]})
        else:
            found.append({**turn, "role": "tool"} if role == "tool_response" else turn)
    return found


def _role(turn: Any) -> Any:
    return turn.get("role") if isinstance(turn, Mapping) else None


def _function(content: Any) -> Any:
    """Name and arguments of a call, which is an object or JSON text of one; anything else is for the server to name."""
    try:
        call = json.loads(content) if isinstance(content, str) else content
    except ValueError:
        return content
    if not isinstance(call, Mapping):
        return content
    arguments = common.first(call, ("arguments", "parameters"))
    return {"name": call.get("name"), **({} if arguments is None else {"arguments": arguments})}

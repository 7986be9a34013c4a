"""verifiers: a reward for its tasks (read against 0.4.0), and a rubric for environments of its first generation (0.1).

In: a task and the trace of its rollout, or prompt, completion and answer. Out: a number. What could not be scored
raises `Unscored`: 0.4 records an error of the rollout then, 0.1 counts it as 0.

    --env.taskset.task.rewards.gradus.fn gradus_client.adapters.verifiers:reward
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ..errors import GradusError
from . import common

MESSAGE_KEYS = ("role", "content", "reasoning_content", "name")


class Unscored(GradusError):
    """There is no reward; the message says why."""


async def reward(task: Any, trace: Any) -> float:
    """A reward of a task, plugged by name, or called by a method under `@vf.reward`."""
    label = common.first({key: getattr(task, key, None) for key in common.LABEL_KEYS}, common.LABEL_KEYS)
    tools = [_tool(tool) for tool in trace.branches[-1].tools] if trace.branches else []
    turns = [message(turn) for turn in trace.messages]
    return await _score(common.trajectory(None, turns, label, tools=tools or None, truncated=bool(trace.is_truncated)))


def rubric(name: str | None = None, **keywords: Any) -> Any:
    """A `Rubric` of the first generation with one function, scored by the Gradus rubric `name`."""
    import verifiers  # noqa: PLC0415

    async def gradus(prompt: Any, completion: Any, answer: Any = None, info: Any = None, **_: Any) -> float:
        label = answer if answer not in (None, "") else (info or {}).get("ground_truth")
        return await _score(common.trajectory(prompt, completion, label), name)

    return verifiers.Rubric(funcs=[gradus], **keywords)


async def _score(item: Mapping[str, Any], name: str | None = None) -> float:
    client = common.client()
    asked = client.asynchronous.score([item], **common.settings(name))
    found = await asyncio.wrap_future(client.portal.submit(asked))
    common.tell(found)
    score = found.results[0]
    if score.reward is None:
        raise Unscored(common.first_error(score))
    return score.reward


def message(turn: Any) -> dict[str, Any]:
    """A message of verifiers as the API takes it: there, calls are flat."""
    plain: dict[str, Any] = dict(turn) if isinstance(turn, Mapping) else turn.model_dump(mode="json", exclude_none=True)
    calls = [
        {"id": call.get("id"), "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        if "function" not in call
        else call
        for call in plain.get("tool_calls") or ()
    ]
    kept = {key: value for key, value in plain.items() if key in MESSAGE_KEYS}
    return {**kept, "tool_calls": calls} if calls else kept


def _tool(tool: Any) -> dict[str, Any]:
    plain: dict[str, Any] = dict(tool) if isinstance(tool, Mapping) else tool.model_dump(mode="json", exclude_none=True)
    return plain if "function" in plain else {"type": "function", "function": plain}

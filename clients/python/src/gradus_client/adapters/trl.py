"""TRL and ms-swift: a reward function for `GRPOTrainer` (read against TRL 1.16.0 and ms-swift 4.6.0).

In: what the trainer passes: prompts, completions, columns of the data set. Out: one number per completion, or `None`
for what could not be scored, which TRL keeps out of the group's statistics. An exception would end the training, so
there is none: if the server cannot be had, everything is `None` and a warning says why.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..batching import encode
from ..client import Client
from ..results import Scores
from . import common

logger = logging.getLogger(__name__)


class RewardFunction:
    """A reward function. An object, since `AsyncGRPOTrainer` pickles what it is given for a process of its own."""

    def __init__(self, client: Client | None, *, rubric: str | None, run_id: str | None, label: str, name: str) -> None:
        self.__name__ = name
        self._client = client
        self._rubric, self._run_id, self._label = rubric, run_id, label

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        try:
            items = _trajectories(prompts, completions, completion_ids, columns, self._label)
            step = getattr(columns.get("trainer_state"), "global_step", None)
            client = self._client or common.client()
            scores = client.score(items, step=step, **common.settings(self._rubric, self._run_id))
            _log(scores, columns.get("log_metric"), self.__name__)
            return scores.rewards
        except Exception as error:  # it must not reach the trainer
            logger.warning("no rewards for %d completions: %s", len(completions), error)
            return [None] * len(completions)

    def __getstate__(self) -> dict[str, Any]:
        if self._client is not None:
            raise TypeError("a client cannot go to another process; leave it out, and set GRADUS_URL and GRADUS_TOKEN")
        return dict(self.__dict__)


def reward_function(
    client: Client | None = None,
    *,
    rubric: str | None = None,
    run_id: str | None = None,
    label: str = "ground_truth",
    name: str = "gradus",
) -> RewardFunction:
    """Makes a reward function. `label` is the column with the references; `tools` and `group` are read where present.

    Without `client`, address and token are the environment's (see `common`). `name` is what the trainer's log calls it.
    """
    return RewardFunction(client, rubric=rubric, run_id=run_id, label=label, name=name)


def reward(
    prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
) -> list[float | None]:
    """The reward function with the settings of the environment (see `common`)."""
    return _default(prompts, completions, completion_ids, **columns)


_default = reward_function()


class SwiftReward:
    """The same for ms-swift, which makes an object and passes whole conversations: `orms["gradus"] = SwiftReward`."""

    label = "solution"
    """The column with the references."""

    def __init__(self, args: Any = None, **_: Any) -> None:
        self._reward = reward_function(label=self.label)

    def __call__(
        self, completions: Sequence[Any], messages: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """One reward per completion; a conversation of `messages` ends with its completion."""
        if messages is None:
            return self._reward([None] * len(completions), completions, **columns)
        prompts, replies = [], []
        for conversation in messages:
            first = _first_reply(conversation)
            prompts.append(list(conversation[:first]))
            replies.append(list(conversation[first:]))
        return self._reward(prompts, replies, **columns)


def _first_reply(conversation: Sequence[Mapping[str, Any]]) -> int:
    """Where what the policy wrote begins: after the last turn of the user."""
    users = [place for place, message in enumerate(conversation) if message.get("role") == "user"]
    return users[-1] + 1 if users else 0


def _trajectories(
    prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any, columns: Mapping[str, Any], label: str
) -> list[dict[str, Any]]:
    def column(name: str, place: int) -> Any:
        values = columns.get(name)
        return None if values is None else values[place]

    return [
        common.trajectory(
            prompt,
            completion,
            column(label, place),
            tools=column("tools", place),
            # Completions of the same prompt are one group.
            group=column("group", place) or _prompt_key(prompt),
            response_tokens=None if completion_ids is None else len(completion_ids[place]),
        )
        for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def _prompt_key(prompt: Any) -> str:
    """A short name for a prompt, the same in every process."""
    return hashlib.sha256(encode(prompt)).hexdigest()[:16]


def _log(scores: Scores, log_metric: Callable[[str, float], None] | None, name: str) -> None:
    """Means of the stages to the trainer's log, and one warning for what could not be scored."""
    valid = [result for result in scores.results if result.valid]
    invalid = [result for result in scores.results if not result.valid]
    if invalid:
        logger.warning("%d of %d not scored; %s", len(invalid), len(scores.results), common.first_error(invalid[0]))
    if log_metric is not None:
        log_metric(f"{name}/invalid", len(invalid) / max(1, len(scores.results)))
        for metric in valid[0].metrics if valid else ():
            log_metric(f"{name}/{metric}", sum(result.metrics[metric] for result in valid) / len(valid))

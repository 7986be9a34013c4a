"""TRL and ms-swift: a reward function for `GRPOTrainer` (read against TRL 1.16.0 and ms-swift 4.6.0).

In: what the trainer passes: prompts, completions, columns of the data set. Out: one number per completion, or `None`
for what could not be scored, which TRL keeps out of the group's statistics where no other function has a reward. An
exception would end the training, so there is none: if the server cannot be had, everything is `None` and a warning says
why.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..batching import encode
from ..client import Client, OnInvalid, Trajectory
from ..results import Score
from . import common, ms_swift

logger = logging.getLogger(__name__)


class RewardFunction:
    """A reward function. An object, since `AsyncGRPOTrainer` pickles what it is given for a process of its own."""

    def __init__(
        self,
        client: Client | None,
        *,
        rubric: str | None,
        run_id: str | None,
        label: str,
        name: str,
        on_invalid: OnInvalid,
    ) -> None:
        self.__name__ = name
        self._client = client
        self._rubric, self._run_id, self._label, self._on_invalid = rubric, run_id, label, on_invalid

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        return self.rewards(prompts, completions, columns, {"completion_ids": completion_ids})

    def rewards(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Any],
        sampled: Mapping[str, Sequence[Any] | None],
    ) -> list[float | None]:
        """The same; `sampled` has what no column of a data set may stand for: `completion_ids` and `truncated`."""
        scores: list[Score | None] = [None] * len(completions)
        try:
            scores = self._score(self._items(prompts, completions, columns, sampled), columns)
        except Exception as error:  # it must not reach the trainer
            logger.warning("no rewards for %d completions: %s", len(completions), error)
        try:
            _log(scores, columns.get("log_metric"), self.__name__)
        except Exception as error:  # nor must this
            logger.warning("the rewards' means were not logged: %s", error)
        return [None if score is None else score.reward for score in scores]

    def _items(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Any],
        sampled: Mapping[str, Sequence[Any] | None],
    ) -> list[Trajectory | None]:
        named = {"label": self._label, "tools": "tools", "group": "group"}
        given = {**{field: columns.get(name) for field, name in named.items()}, **sampled}
        there = {name: values for name, values in given.items() if values is not None}
        rows = ({name: values[place] for name, values in there.items()} for place in range(len(completions)))
        items = [_trajectory(*each) for each in zip(prompts, completions, rows, strict=True)]
        if items and not any(items):
            raise ValueError("none of them can be read")
        return items

    def _score(self, items: Sequence[Trajectory | None], columns: Mapping[str, Any]) -> list[Score | None]:
        settings = common.settings(self._rubric, self._run_id)
        if _evaluates(columns.get("log_metric")):
            # What a run knows of its prompts decides what is trained on next.
            settings["run_id"] = None
        step = getattr(columns.get("trainer_state"), "global_step", None)
        client = self._client or common.client()
        return common.score_each(client, items, step=step, on_invalid=self._on_invalid, **settings)

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
    on_invalid: OnInvalid = "null",
) -> RewardFunction:
    """Makes a reward function. `label` is the column with the references; `tools` and `group` are read where present.

    Without `client`, address and token are the environment's (see `common`). `name` is what the trainer's log calls it:
    each of several needs one of its own. `on_invalid` is what it returns for what could not be scored (`error`: `None`
    for all): `mean` is for trainers that take `None` for 0, as TRL does beside other functions.
    """
    return RewardFunction(client, rubric=rubric, run_id=run_id, label=label, name=name, on_invalid=on_invalid)


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
    on_invalid: OnInvalid = "null"
    """What is returned for what could not be scored; ms-swift takes `None` for 0."""

    def __init__(self, args: Any = None, **_: Any) -> None:
        self._reward = reward_function(label=self.label, on_invalid=self.on_invalid)

    def __call__(
        self, completions: Sequence[Any], messages: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """One reward per completion; a conversation of `messages` ends with its completion."""
        prompts: Sequence[Any] = [None] * len(completions)
        if messages is not None:
            parted = [ms_swift.parted(turns) for turns in messages]
            prompts, completions = [prompt for prompt, _ in parted], [reply for _, reply in parted]
        ids = columns.get("response_token_ids")
        completion_ids = None if ids is None else [ms_swift.token_ids(turns) for turns in ids]
        sampled = {"completion_ids": completion_ids, "truncated": columns.get("is_truncated")}
        return self._reward.rewards(prompts, completions, columns, sampled)


def _trajectory(prompt: Any, completion: Any, row: Mapping[str, Any]) -> Trajectory | None:
    ids = row.get("completion_ids")
    try:
        return common.trajectory(
            prompt,
            completion,
            row.get("label"),
            tools=row.get("tools"),
            # Completions of the same prompt are one group.
            group=row.get("group") or _prompt_key(prompt),
            response_tokens=None if ids is None else len(ids),
            truncated=row.get("truncated"),
        )
    except Exception as error:  # what nobody can read costs no other one its reward
        logger.warning("a completion was not scored: %s", error)
        return None


def _prompt_key(prompt: Any) -> str:
    """A short name for a prompt, the same in every process. Images are part of it: many may have the same question."""
    try:
        text = encode(prompt)
    except (TypeError, ValueError):
        text = json.dumps(prompt, default=_named).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def _named(value: Any) -> Any:
    """What stands for what is no JSON: a list for an array, a hash of its pixels for an image, else its type."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return hashlib.sha256(value.tobytes()).hexdigest() if hasattr(value, "tobytes") else type(value).__name__


def _evaluates(log_metric: Any) -> bool:
    """Whether TRL evaluates. No argument says so, but `log_metric` is a method of the trainer, which asks its model."""
    model = getattr(getattr(log_metric, "__self__", None), "model", None)
    return getattr(model, "training", True) is False


def _log(scores: Sequence[Score | None], log_metric: Callable[[str, float], None] | None, name: str) -> None:
    """Means of the stages to the trainer's log, and one warning for what could not be scored."""
    valid = [score for score in scores if score is not None and score.valid]
    invalid = [score for score in scores if score is not None and not score.valid]
    if invalid:
        logger.warning("%d of %d not scored; %s", len(invalid), len(scores), common.first_error(invalid[0]))
    if log_metric is not None:
        log_metric(f"{name}/invalid", (len(scores) - len(valid)) / max(1, len(scores)))
        for metric in valid[0].metrics if valid else ():
            log_metric(f"{name}/{metric}", sum(result.metrics[metric] for result in valid) / len(valid))

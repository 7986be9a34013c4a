"""EasyR1: a batch reward function (read against EasyR1 0.3.3.dev0).

In: a list of `{"response", "response_length", "ground_truth"}`. Out: as many `{"overall", "format", "accuracy"}`, every
key in each, as EasyR1 averages them. `format` is the lowest score of the stages that ask for form, `accuracy` that of
`exact_match` where the rubric reports it, else the reward. What could not be scored gets GRADUS_FALLBACK and zeros.

    worker.reward.reward_function: a file with `from gradus_client.adapters.easyr1 import *`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..results import Score
from . import common

__all__ = ["REWARD_NAME", "REWARD_TYPE", "compute_score"]

REWARD_NAME = "gradus"
REWARD_TYPE = "batch"

FORM = ("tool_parse", "tool_schema", "answer_format")
"""Stages that ask for form."""


def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]],
    *,
    url: str | None = None,
    rubric: str | None = None,
    run_id: str | None = None,
    **_: Any,
) -> list[dict[str, float]]:
    """Scores a batch; the keywords come from `reward_function_kwargs`."""
    items = [
        common.trajectory(None, each["response"], each.get("ground_truth"), response_tokens=each.get("response_length"))
        for each in reward_inputs
    ]
    return [_parts(score) for score in common.scores(items, url, rubric, run_id)]


def _parts(score: Score | None) -> dict[str, float]:
    if score is None or score.reward is None:
        return {"overall": common.fallback(), "format": 0.0, "accuracy": 0.0}
    form = min((score.metrics[stage] for stage in FORM if stage in score.metrics), default=1.0)
    return {"overall": score.reward, "format": form, "accuracy": score.metrics.get("exact_match", score.reward)}

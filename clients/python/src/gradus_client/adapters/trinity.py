"""Trinity-RFT: a reward function whose parts sum to the reward (read against Trinity-RFT 0.6.0).

In: a response and its truth. Out: a dictionary; the workflow sums it up and logs its entries. Set
`default_reward_fn_type: gradus_client.adapters.trinity.GradusReward` and `reward_fn_args: {rubric: .., run_id: ..}`.
What could not be scored gets GRADUS_FALLBACK, under the one key `gradus_invalid`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from ..results import Score
from . import common

logger = logging.getLogger(__name__)


def parts(score: Score) -> dict[str, float]:
    """The parts of a reward."""
    if not score.valid:
        logger.warning("a response was not scored: %s", common.first_error(score))
        return {"gradus_invalid": common.fallback()}
    return dict(score.components)


def compute(response: str, truth: Any, prompt: Any, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Scores one response; a server that cannot be had is no reason to stop."""
    client = common.client(arguments.get("url"))
    settings = common.settings(arguments.get("rubric"), arguments.get("run_id"))
    try:
        found = client.score([common.trajectory(prompt, response, truth)], **settings)
        common.tell(found)
        return parts(found.results[0])
    except Exception as error:
        logger.warning("a response was not scored: %s", error)
        return {"gradus_invalid": common.fallback()}


@functools.cache
def _reward_class() -> Any:
    from trinity.common.rewards.reward_fn import RewardFn  # noqa: PLC0415

    class GradusReward(RewardFn):  # type: ignore[misc,unused-ignore]
        """The class that Trinity makes an object of."""

        def __init__(self, **arguments: Any) -> None:
            self._arguments = arguments

        def __call__(self, response: str, truth: Any = None, prompt: Any = None, **_: Any) -> dict[str, float]:
            return compute(response, truth, prompt, self._arguments)

    return GradusReward


def __getattr__(name: str) -> Any:
    # The class derives from one of Trinity's, which is imported when it is asked for.
    if name == "GradusReward":
        return _reward_class()
    raise AttributeError(name)

"""SkyRL: an environment of one turn, and the reward for environments of several (read against skyrl-gym 0.4.0).

In: a policy's text, or a whole conversation, and the data set's `reward_spec`. Out: a reward. Register it inside of the
entry point: `skyrl_gym.envs.register(id="gradus", entry_point="gradus_client.adapters.skyrl:GradusEnv")`.
SkyRL needs a number: what could not be scored gets GRADUS_FALLBACK, and `gradus_valid` is 0. It logs an environment's
`get_metrics`; the `metadata` of a step it does not read.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from . import common


def reward(conversation: Sequence[Any], extras: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    """Reward and metrics of a conversation; `extras` are the environment's (`reward_spec.ground_truth`, `tools`)."""
    truth = (extras.get("reward_spec") or {}).get("ground_truth")
    item = common.trajectory(None, list(conversation), truth, tools=extras.get("tools"))
    (score,) = common.scores([item])
    if score is None or score.reward is None:
        return common.fallback(), {"gradus_valid": 0.0}
    return score.reward, {**score.metrics, "gradus_valid": 1.0}


@functools.cache
def _environment_class() -> Any:
    from skyrl_gym.envs.base_text_env import BaseTextEnv  # noqa: PLC0415

    class GradusEnv(BaseTextEnv):  # type: ignore[misc,unused-ignore]
        """One question, one answer, one reward."""

        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            self._extras = extras or {}
            self._prompt: list[Any] = []
            self._metrics: dict[str, float] = {}

        def init(self, prompt: Any) -> Any:
            self._prompt, self._metrics = list(prompt), {}
            return prompt, {}

        def step(self, action: str) -> dict[str, Any]:
            turns = [*self._prompt, {"role": "assistant", "content": action}]
            value, self._metrics = reward(turns, self._extras)
            return {"observations": [], "reward": value, "done": True, "metadata": dict(self._metrics)}

        def get_metrics(self) -> dict[str, float]:
            return dict(self._metrics)

    return GradusEnv


def __getattr__(name: str) -> Any:
    # The class derives from one of SkyRL's, which is imported when it is asked for.
    if name == "GradusEnv":
        return _environment_class()
    raise AttributeError(name)

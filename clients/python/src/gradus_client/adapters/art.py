"""ART: rewards for a group of trajectories (read against openpipe-art 0.5.23).

In: a `TrajectoryGroup`. Out: a new one with the rewards set, to be used as `after_each` of `gather_trajectory_groups`.
A reward is a number there: trajectories that could not be scored leave the group, and a group without any is `None`,
which ART drops.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from . import common

logger = logging.getLogger(__name__)


async def score_group(group: Any, *, rubric: str | None = None, run_id: str | None = None) -> Any:
    """Scores a group in one request, so that a judge that ranks sees all of it; references are in the metadata."""
    name = uuid.uuid4().hex
    trajectories, items = [], []
    for trajectory in group.trajectories:
        try:
            items.append(_trajectory(trajectory, name))
        except Exception as error:  # captured calls that are no chat must not end the training
            logger.warning("a trajectory was not scored: %s", error)
        else:
            trajectories.append(trajectory)
    if not items:
        return None
    client = common.client()
    try:
        asked = client.asynchronous.score(items, **common.settings(rubric, run_id))
        found = await asyncio.wrap_future(client.portal.submit(asked))
    except Exception as error:  # one lost group must not end the training
        logger.warning("a group of %d was not scored: %s", len(items), error)
        return None
    common.tell(found)
    scored = []
    for trajectory, result in zip(trajectories, found.results, strict=True):
        if result.reward is None:
            logger.warning("a trajectory was not scored: %s", common.first_error(result))
            continue
        metrics = {**trajectory.metrics, **{f"gradus/{key}": value for key, value in result.metrics.items()}}
        scored.append(trajectory.model_copy(update={"reward": result.reward, "metrics": metrics}))
    return type(group)(scored, metadata=group.metadata) if scored else None


def _trajectory(trajectory: Any, group: str) -> dict[str, Any]:
    label = common.first(trajectory.metadata, common.LABEL_KEYS)
    tools = trajectory.tools
    # Trajectories of captured calls keep the tools with the calls; older versions have no such trajectories.
    if getattr(trajectory, "exchanges", None):
        tools = trajectory.history().as_chat_completions_history().tools
    return common.trajectory(None, trajectory.messages(), label, tools=tools, group=group)

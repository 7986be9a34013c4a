"""verl: `compute_score`, and VSPO as an advantage estimator (read against verl 0.9.1).

In: what verl's reward managers pass, and token-level rewards of a batch. Out: dictionaries with the same keys for every
sample, as verl collates them; advantages and returns per token. verl needs a number for every sample: what could not be
scored gets GRADUS_FALLBACK and `valid` 0.

    reward.custom_reward_function.path=pkg://gradus_client.adapters.verl
    VERL_USE_EXTERNAL_MODULES=gradus_client.adapters.verl  algorithm.adv_estimator=vspo
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import vspo
from ..results import Score
from . import common

logger = logging.getLogger(__name__)


def compute_score_batch(
    data_sources: Sequence[Any],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    url: str | None = None,
    rubric: str | None = None,
    run_id: str | None = None,
    **_: Any,
) -> list[dict[str, float]]:
    """Whole batches, for code that has them: verl 0.9.1's managers pass samples. `url`, `rubric`, `run_id` as there."""
    samples = zip(solution_strs, ground_truths, extra_infos, strict=True)
    items = [_item(solution, truth, extra) for solution, truth, extra in samples]
    return [_flat(score) for score in common.scores(items, url, rubric, run_id)]


def compute_score_sync(
    data_source: Any, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **keywords: Any
) -> dict[str, float]:
    """One sample, for callers without an event loop."""
    return compute_score_batch([data_source], [solution_str], [ground_truth], [extra_info], **keywords)[0]


async def compute_score(
    data_source: Any, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **keywords: Any
) -> dict[str, float]:
    """One sample; verl awaits many of these at once."""
    try:
        settings = common.settings(keywords.get("rubric"), keywords.get("run_id"))
        client = common.client(keywords.get("url"))
        item = _trajectory(solution_str, ground_truth, extra_info or {})
        scores = await asyncio.wrap_future(client.portal.submit(client.asynchronous.score([item], **settings)))
    except Exception as error:  # a lost sample must not end the training
        logger.warning("a sample was not scored: %s", error)
        return _flat(None)
    common.tell(scores)
    return _flat(common.valid(scores.results[0]))


def _item(solution: str, truth: Any, extra: Mapping[str, Any] | None) -> dict[str, Any] | None:
    try:
        return _trajectory(solution, truth, extra or {})
    except Exception as error:  # nor must one with columns that nobody can read
        logger.warning("a sample was not scored: %s", error)
        return None


def _trajectory(solution: str, truth: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    prompt = next((extra[key] for key in ("prompt", "question") if extra.get(key) is not None), None)
    messages = extra.get("messages")
    # An agent loop can decode the tokens itself; verl takes special tokens away, and with them the marks of calls. The
    # name is none that a data set has: its column would be scored in place of what the policy wrote.
    whole = extra.get("gradus_solution_str")
    text = whole if isinstance(whole, str) else solution
    completion = text if messages is None else messages
    fields = {key: extra.get(key) for key in ("tools", "group", "tool_format", "truncated", "response_tokens")}
    return common.trajectory(None if messages is not None else prompt, completion, truth, **fields)


def _flat(score: Score | None) -> dict[str, float]:
    if score is None or score.reward is None:
        return {"score": common.fallback(), "acc": 0.0, "valid": 0.0}
    return {"score": score.reward, "acc": score.metrics.get("exact_match", score.reward), "valid": 1.0}


def compute_vspo_advantage(
    token_level_rewards: Any, response_mask: Any, index: Sequence[Any], config: Any = None, **_: Any
) -> tuple[Any, Any]:
    """VSPO's advantages, of shape (samples, tokens); `index` names the group of each sample.

    verl runs every sample once and divides by its own count of tokens, so the advantages carry what a group counts for
    all its copies, and the ratio of the two counts: with `loss_agg_mode=token-mean` and one mini-batch the policy's
    gradient is VSPO's. The seed is GRADUS_VSPO_SEED (0) plus the number of calls in this process.
    """
    rewards = _numbers(token_level_rewards.sum(-1))
    lengths = _numbers(response_mask.sum(-1))
    factors = sample_advantages(rewards, lengths, [str(group) for group in index], _next_seed(), _options(config))
    advantages = _column(token_level_rewards, factors) * response_mask
    return advantages, advantages


def sample_advantages(
    rewards: Sequence[float],
    lengths: Sequence[float],
    groups: Sequence[str],
    seed: int,
    options: vspo.PlanOptions | None = None,
) -> list[float]:
    """One advantage per sample, times what its group counts and the ratio of the counts of tokens."""
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    grouped = {group: [rewards[place] for place in places] for group, places in members.items()}
    planned = vspo.advantages(grouped, seed=seed, options=options)
    tokens = {group: sum(lengths[place] for place in places) for group, places in members.items()}
    in_plan = sum(answer.multiplicity * tokens[answer.group] for answer in planned)
    ratio = sum(tokens.values()) / in_plan if in_plan > 0 else 0.0
    found = [0.0] * len(rewards)
    for answer in planned:
        for place, advantage in zip(members[answer.group], answer.advantages, strict=True):
            found[place] = (advantage or 0.0) * answer.factor * ratio
    return found


def _options(config: Any) -> vspo.PlanOptions:
    """From `algorithm.vspo` (`+algorithm.vspo.gamma=0.7`), where verl's configuration has it."""
    found = config.get("vspo") if hasattr(config, "get") else None
    return vspo.PlanOptions(**dict(found)) if found else vspo.PlanOptions()


def _numbers(tensor: Any) -> list[float]:
    return [float(number) for number in tensor.tolist()]


def _column(like: Any, numbers: Sequence[float]) -> Any:
    """A tensor of shape (samples, 1), of torch or of numpy as `like` is."""
    if hasattr(like, "new_tensor"):
        return like.new_tensor(numbers).unsqueeze(-1)
    return (like.sum(-1) * 0 + numbers)[:, None]


_seeds: Iterator[int] = itertools.count(int(os.environ.get("GRADUS_VSPO_SEED", "0")))


def _next_seed() -> int:
    return next(_seeds)


def register() -> bool:
    """Registers the estimator as `vspo`; whether verl is there. Importing this module does it."""
    try:
        from verl.trainer.ppo.core_algos import register_adv_est  # noqa: PLC0415
    except ImportError:
        return False
    register_adv_est("vspo")(compute_vspo_advantage)
    return True


register()

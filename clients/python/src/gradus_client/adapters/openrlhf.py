"""OpenRLHF: the function of a reward file (read against OpenRLHF 0.11.2).

In: queries (prompt and response in one text, with special tokens), prompts, labels. Out: rewards, scores from 0 to 1,
and what to log, as tensors where torch is there. Write a file with the line
`from gradus_client.adapters.openrlhf import reward_func` and pass it as `--reward.remote_url file.py`. Without Python,
`--reward.remote_url http://host:8080/get_reward` does the same. OpenRLHF needs a number: what could not be scored gets
GRADUS_FALLBACK, and so does a query that does not begin with its prompt and has no markers of a chat template. Without
a label, or with an empty one, the table of `POST /references` is asked by prompt.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..batching import encode
from ..client import Client
from ..errors import GradusError
from ..transport import Request
from . import common

logger = logging.getLogger(__name__)

END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<eos>", "<end_of_turn>")
"""What generation ends with, in the usual vocabularies; not part of what the policy says."""

BEGIN_TOKENS = (
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",  # DeepSeek's, with its own bars
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<bos>",
    "<s>",
)
"""What a text begins with, in the usual vocabularies. Encoding adds one, whether the prompt has one or not."""


class Query(NamedTuple):
    """A query for the server's own reading; without a prompt it looks for the response by the markers of a template."""

    text: str
    prompt: str | None
    label: dict[str, Any]


class Outcome(NamedTuple):
    """What one query got."""

    reward: float | None
    valid: bool
    metrics: Mapping[str, float]


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> dict[str, Any]:
    """Rewards of a shard; OpenRLHF calls it with one sample at a time."""
    divided: dict[int, dict[str, Any]] = {}
    asked: dict[int, Query] = {}
    for place, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        reply = response(query, prompt)
        # OpenRLHF sends an empty label for each row of a data set whose labels it was not told of.
        known = {} if isinstance(label, str) and not label else common.with_tools(common.read_label(label))
        if reply is None:
            asked[place] = Query(query, None, known)
        elif "references" not in known and "reference_calls" not in known:
            asked[place] = Query(prompt + reply, prompt, known)
        else:
            divided[place] = common.trajectory(prompt, reply, label)
    client = common.client()
    found = dict(zip(divided, _score(client, list(divided.values())), strict=True))
    found.update(zip(asked, _ask(client, list(asked.values())), strict=True))
    results = [found[place] for place in range(len(queries))]
    rewards = [common.fallback() if result.reward is None else result.reward for result in results]
    logs = {key: [result.metrics[key] for result in results] for key in results[0].metrics} if results else {}
    logs["gradus_valid"] = [float(result.valid) for result in results]
    return {
        "rewards": _tensor(rewards),
        "scores": _tensor([min(1.0, max(0.0, reward)) for reward in rewards]),
        "extra_logs": {key: _tensor(values) for key, values in logs.items()},
    }


def _score(client: Client, items: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    found = client.score(items, **common.settings())
    common.tell(found)
    for result in found.results:
        if result.reward is None:
            logger.warning("a query was not scored: %s", common.first_error(result))
    return [Outcome(result.reward, result.valid, result.metrics) for result in found.results]


def _ask(client: Client, queries: Sequence[Query]) -> list[Outcome]:
    """Queries that `POST /reward` is not for.

    Where one does not begin with its prompt, `POST /get_reward` looks for the response by markers of chat templates;
    without markers nothing is scored, as the prompt is not the policy's. Where there is no label it asks the table of
    references.
    """
    if not queries:
        return []
    body = {
        "query": [query.text for query in queries],
        "prompts": [query.prompt for query in queries],
        "labels": [query.label or None for query in queries],
    }
    fields = {**common.settings(), "on_invalid": "null", "deadline_ms": client.asynchronous.options.deadline_ms}
    asked = {name: value for name, value in fields.items() if value is not None}
    request = Request("POST", "/get_reward", encode(body), uuid.uuid4().hex, asked)
    answer = client.portal.run(client.asynchronous.ask(request))
    # What would fail again is told with status 200, since OpenRLHF tries everything else again.
    if answer.get("error"):
        raise GradusError(answer["error"])
    logs = dict(answer["extra_logs"])
    valid = logs.pop("valid")
    outcomes = [
        Outcome(reward, bool(valid[place]), {name: values[place] for name, values in logs.items()})
        for place, reward in enumerate(answer["rewards"])
    ]
    for query, outcome in zip(queries, outcomes, strict=True):
        if outcome.reward is None:
            logger.warning("a query was not scored, the server's log says why; %s", _doubt(query))
    return outcomes


def _doubt(query: Query) -> str:
    """What to look at first: `POST /get_reward` does not say why."""
    if query.prompt is None:
        return "it does not begin with its prompt: has it the markers of a chat template?"
    return "its label has no references: is its prompt in the table of POST /references?"


def _tensor(numbers: list[float]) -> Any:
    # OpenRLHF makes a tensor of a list with this in it: of a list it would have one dimension too many.
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return numbers
    return torch.tensor(numbers)


def response(query: str, prompt: str) -> str | None:
    """What the policy wrote: the query without the prompt and without the tokens that end it.

    `None` where the query does not begin with the prompt.
    """
    text = query[len(prompt) :] if query.startswith(prompt) else _after(query, prompt)
    while text is not None:
        stripped = text.rstrip()
        end = next((token for token in END_TOKENS if stripped.endswith(token)), None)
        if end is None:
            return text
        text = stripped.removesuffix(end)
    return None


def _after(query: str, prompt: str) -> str | None:
    """What follows the prompt, whatever white space and tokens at the beginning encoding and decoding added or took."""
    query, at = _without_begin(query), 0
    for character in "".join(_without_begin(prompt).split()):
        while query[at : at + 1].isspace():
            at += 1
        if query[at : at + 1] != character:
            return None
        at += 1
    return query[at:].lstrip()


def _without_begin(text: str) -> str:
    while True:
        text = text.lstrip()
        token = next((token for token in BEGIN_TOKENS if text.startswith(token)), None)
        if token is None:
            return text
        text = text.removeprefix(token)

"""What the adapters share: the client of this process, and the trajectory of a prompt, a completion and a label.

In: environment variables and whatever trainers pass. Out: a `Client`, and mappings that `score` takes. Knows no
trainer.

    GRADUS_URL          address of the server (http://127.0.0.1:8080)
    GRADUS_TOKEN        its token, if it wants one
    GRADUS_RUBRIC       rubric, or name@version (the server's default)
    GRADUS_RUN_ID       under what name the scores are kept (none)
    GRADUS_DEADLINE_MS  time for a request with all its tries, in milliseconds (60000)
    GRADUS_CONCURRENCY  requests in flight at once, over all callers of this process (256)
    GRADUS_FALLBACK     reward of what could not be scored, for trainers that need a number (0.0)
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..client import Client
from ..results import Score
from ..transport import Options

logger = logging.getLogger(__name__)

LABEL_KEYS = ("references", "ground_truth", "answers", "golden_answers", "target", "answer")
"""Where a label that is an object keeps its references; the first one that is there counts."""


def client(url: str | None = None) -> Client:
    """The client of an address, shared by all callers in this process; without one, of the environment's address."""
    address = url or os.environ.get("GRADUS_URL", "http://127.0.0.1:8080")
    with _lock:
        if address not in _clients:
            options = Options(
                deadline_ms=int(os.environ.get("GRADUS_DEADLINE_MS", "60000")),
                max_concurrency=int(os.environ.get("GRADUS_CONCURRENCY", "256")),
            )
            _clients[address] = Client(address, token=os.environ.get("GRADUS_TOKEN"), options=options)
        return _clients[address]


def close() -> None:
    """Closes the clients of this process; the next call of an adapter makes new ones, from the environment of then."""
    with _lock:
        closing = list(_clients.values())
        _clients.clear()
    for each in closing:
        each.close()


_clients: dict[str, Client] = {}
_lock = threading.Lock()


def settings(rubric: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """Rubric and run, the arguments winning over the environment."""
    return {"rubric": rubric or os.environ.get("GRADUS_RUBRIC"), "run_id": run_id or os.environ.get("GRADUS_RUN_ID")}


def fallback() -> float:
    """The number for what could not be scored, where a trainer needs one."""
    return float(os.environ.get("GRADUS_FALLBACK", "0"))


def trajectory(prompt: Any, completion: Any, label: Any = None, **fields: Any) -> dict[str, Any]:
    """One item of `score`; prompt and completion are texts or lists of messages. Fields of `None` are left out."""
    item = {name: value for name, value in fields.items() if value is not None}
    item.update(read_label(label))
    item = with_tools(item)
    if isinstance(completion, str):
        return {**item, "prompt": "" if prompt is None else prompt, "response": completion}
    return {**item, "messages": [*messages(prompt, "user"), *messages(completion, "assistant")]}


def with_tools(item: dict[str, Any]) -> dict[str, Any]:
    """With the list of tools where a data set holds it as JSON text; anything else is for the server to name."""
    if not isinstance(item.get("tools"), str):
        return item
    try:
        return {**item, "tools": json.loads(item["tools"])}
    except ValueError:
        return item


def messages(turns: Any, role: str) -> list[Any]:
    """Chat messages as they are; a text becomes one message of this role."""
    if turns is None:
        return []
    return [{"role": role, "content": turns}] if isinstance(turns, str) else list(turns)


def read_label(label: Any) -> dict[str, Any]:
    """References, and tools and group where the label is an object with them, or JSON text of one."""
    plain = label.tolist() if hasattr(label, "tolist") else label  # numpy, as data sets in Parquet hold it
    if isinstance(plain, str):
        plain = _decoded(plain)
    if isinstance(plain, Mapping):
        found = next((read_label(plain[key]) for key in LABEL_KEYS if plain.get(key) is not None), {})
        return {**found, **{key: plain[key] for key in ("tools", "group") if plain.get(key) is not None}}
    if plain is None or (isinstance(plain, float) and math.isnan(plain)):  # how pandas says that there is none
        return {}
    several = isinstance(plain, Iterable) and not isinstance(plain, str)
    return {"references": list(plain) if several else [plain]}


def _decoded(text: str) -> Any:
    """An object with known keys, if the text is JSON of one; otherwise the text itself."""
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if isinstance(value, dict) and any(key in value for key in (*LABEL_KEYS, "tools", "group")):
            return value
    return text


def scores(
    items: Sequence[Mapping[str, Any]], url: str | None = None, rubric: str | None = None, run_id: str | None = None
) -> list[Score | None]:
    """A score for each item; `None`, and a warning, for what could not be scored."""
    try:
        results = client(url).score(items, **settings(rubric, run_id)).results
    except Exception as error:  # a lost batch must not end the training
        logger.warning("%d trajectories not scored: %s", len(items), error)
        return [None] * len(items)
    return [valid(score) for score in results]


def valid(score: Score) -> Score | None:
    """The score, if it is one; otherwise a warning says why not."""
    if score.valid and score.reward is not None:
        return score
    logger.warning("a trajectory was not scored: %s", first_error(score))
    return None


def first_error(score: Score) -> str:
    """Why something could not be scored, for a log line."""
    return f"{score.errors[0].code}: {score.errors[0].message}" if score.errors else "no reason was given"

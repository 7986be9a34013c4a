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
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..batching import encode_item
from ..client import Client, Trajectory
from ..results import Score, Scores
from ..transport import Options

logger = logging.getLogger(__name__)

LABEL_KEYS = (
    "references",
    "golds",
    "ground_truth",
    "target",
    "answer",
    "answers",
    "expected_answer",
    "golden_answers",
)
"""Where a label that is an object keeps its references; the first one that is there counts.

The server reads labels in the same way: both are tested with `tests/cases/labels.json`.
"""

BESIDE_KEYS = {
    "reference_calls": ("reference_calls",),
    "tools": ("tools",),
    "group": ("group", "group_id"),
    "group_size": ("group_size",),
}
"""What else such a label may hold, and under which keys."""

PART_KEYS = ("type", "text", "thinking")
"""What the server reads of a part of a message's content."""

LABEL_DEPTH = 2
"""Levels of a label that are looked into: itself, and the object that its references may be."""


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
    """One item of `score`; prompt and completion are texts or lists of messages. Fields of `None` are left out.

    Tools that are given win over the label's, as by URL; the label's group wins over one that is given, or made up.
    """
    known = read_label(label)
    given = {name: plain for name, value in fields.items() if (plain := _plain(value)) is not None}
    if "group" in known:
        given.pop("group", None)
    item = with_tools({**known, **given})
    if isinstance(completion, str):
        return {**item, "prompt": "" if prompt is None else _messages(prompt), "response": completion}
    said = messages(completion, "assistant")
    if prompt is not None and completion is not None and not said:
        # Of a completion without a token no message is left.
        said = messages("", "assistant")
    return {**item, "messages": [*messages(prompt, "user"), *said]}


def with_tools(item: dict[str, Any]) -> dict[str, Any]:
    """With the list of tools where a data set holds it as JSON text; anything else is for the server to name."""
    if not isinstance(item.get("tools"), str):
        return item
    try:
        return {**item, "tools": json.loads(item["tools"])}
    except ValueError:
        return item


def messages(turns: Any, role: str) -> list[Any]:
    """Chat messages, without images and the like; a text becomes one message of this role."""
    if turns is None:
        return []
    return [{"role": role, "content": turns}] if isinstance(turns, str) else _messages(list(turns))


def _messages(turns: Any) -> Any:
    """Messages whose parts have no more than what is scored: images may be no JSON. Anything else as it is."""
    plain = _plain(turns)
    return [_message(turn) for turn in plain] if isinstance(plain, (list, tuple)) else turns


def _message(turn: Any) -> Any:
    parts = _plain(turn.get("content")) if isinstance(turn, Mapping) else None
    return {**turn, "content": [_part(part) for part in parts]} if isinstance(parts, (list, tuple)) else turn


def _part(part: Any) -> Any:
    return {key: part[key] for key in PART_KEYS if key in part} if isinstance(part, Mapping) else part


def read_label(label: Any) -> dict[str, Any]:
    """References, and calls, tools and group where the label is an object with them, or JSON text of one.

    What is odd is handed on as it is, so that the server says what is wrong with it. How many rollouts the group has is
    left out: a callable's requests wait for nobody.
    """
    plain = _plain(label)
    if plain is None:
        return {}
    found = _of_object(_decoded(plain) if isinstance(plain, str) else plain, LABEL_DEPTH)
    if found is None:
        return {"references": _answers(plain)}
    found.pop("group_size", None)
    return found


def first(fields: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of these fields that is there and not `None`, an empty list only where no other is."""
    there = [value for value in (_plain(fields.get(name)) for name in names) if value is not None]
    full = (value for value in there if not isinstance(value, (list, tuple)) or value)
    return next(full, there[0] if there else None)


def _of_object(label: Any, depth: int) -> dict[str, Any] | None:
    """What an object with known keys says; `None` of anything else."""
    if not isinstance(label, Mapping) or depth == 0:
        return None
    answers = first(label, LABEL_KEYS)
    beside = {name: first(label, keys) for name, keys in BESIDE_KEYS.items()}
    found = {name: value for name, value in beside.items() if value is not None}
    if isinstance(answers, Mapping):
        inner = _of_object(answers, depth - 1)
        return {**({"references": answers} if inner is None else inner), **found}
    if answers is not None:
        found["references"] = _answers(answers)
    return found or None


def _answers(value: Any) -> Any:
    several = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    return list(value) if several else value if isinstance(value, Mapping) else [value]


def _plain(value: Any) -> Any:
    """Without numpy, in which data sets in Parquet are, and without the NaN that is nothing to pandas."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(plain, float) and math.isnan(plain) else plain


def _decoded(text: str) -> Any:
    """What a text that begins as an object holds, if it is JSON; otherwise nothing."""
    try:
        return json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        return None


def scores(
    items: Sequence[Trajectory | None], url: str | None = None, rubric: str | None = None, run_id: str | None = None
) -> list[Score | None]:
    """A score for each item; `None`, and a warning, for what could not be scored."""
    try:
        results = score_each(client(url), items, **settings(rubric, run_id))
    except Exception as error:  # a lost batch must not end the training
        logger.warning("%d trajectories not scored: %s", len(items), error)
        return [None] * len(items)
    return [None if score is None else valid(score) for score in results]


def score_each(client: Client, items: Sequence[Trajectory | None], **fields: Any) -> list[Score | None]:
    """A score for each item, valid or not; `None` for `None`, and, with a warning, for what JSON cannot hold.

    Raises what `Client.score` raises.
    """
    sent = {place: item for place, item in enumerate(items) if item is not None}
    try:
        found = client.score(sent.values(), **fields)
    except (TypeError, ValueError, RecursionError):
        # Only now, as writing each item twice takes time.
        sound = {place: item for place, item in sent.items() if _is_json(item)}
        if len(sound) == len(sent):
            raise
        sent, found = sound, client.score(sound.values(), **fields)
    tell(found)
    placed = dict(zip(sent, found.results, strict=True))
    return [placed.get(place) for place in range(len(items))]


def _is_json(item: Any) -> bool:
    try:
        encode_item(item)
    except (TypeError, ValueError, RecursionError) as error:
        logger.warning("a trajectory was not scored: it cannot be written as JSON: %s", error)
        return False
    return True


def tell(found: Scores) -> None:
    """Logs what the server found odd, once in this process, however many trajectories it is about."""
    for warning in found.warnings:
        text = _ABOUT.sub("", warning)
        with _lock:
            new = text not in _told
            _told.add(text)
        if new:
            logger.warning("%s", warning)


_ABOUT = re.compile(r"^/trajectories/\d+: | \(and \d+ more\)$")
_told: set[str] = set()


def valid(score: Score) -> Score | None:
    """The score, if it is one; otherwise a warning says why not."""
    if score.valid and score.reward is not None:
        return score
    logger.warning("a trajectory was not scored: %s", first_error(score))
    return None


def first_error(score: Score) -> str:
    """Why something could not be scored, for a log line."""
    return f"{score.errors[0].code}: {score.errors[0].message}" if score.errors else "no reason was given"

"""Exceptions on their way from one process to another; no server."""

from __future__ import annotations

import copy
import pickle

import pytest

from gradus_client import GradusError, ProblemError, errors
from gradus_client.adapters.verifiers import Unscored

PROBLEM = {
    "type": "urn:gradus:problem:unknown-rubric",
    "title": "Unknown rubric",
    "status": 404,
    "detail": "there is no rubric x",
    "pointer": "/rubric",
    "request_id": "r-1",
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GradusError)]
PLAIN = [kind for kind in [*KINDS, Unscored] if kind is not ProblemError]


def described(error: GradusError) -> tuple[object, ...]:
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize(
    "error",
    [
        *[kind("what failed") for kind in PLAIN],
        ProblemError(404, PROBLEM, 2.5),
        ProblemError.from_body(502, b"<html>Bad Gateway</html>", "r-2", 1.0),
        ProblemError(500, {}),
    ],
    ids=repr,
)
def test_an_error_is_the_same_after_a_journey(error: GradusError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert described(pickle.loads(pickle.dumps(error, protocol))) == described(error)
    assert described(copy.deepcopy(error)) == described(error)

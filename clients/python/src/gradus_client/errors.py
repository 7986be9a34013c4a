"""What can go wrong with a request as a whole; an item that cannot be scored is a result, not an exception.

In: problem documents (RFC 9457) and failures of the connection. Out: exceptions that say what failed and where.
Knows no retries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class GradusError(Exception):
    """Anything that this package raises because of a server."""


class ProblemError(GradusError):
    """The server refused a request with a problem document, or with a status and no document."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float = 0.0) -> None:
        self._problem = dict(problem)
        self.status = status
        """The HTTP status."""
        self.type = str(problem.get("type") or "about:blank")
        """What kind of problem: `urn:gradus:problem:..`."""
        self.title = str(problem.get("title") or "")
        """The kind in words."""
        self.detail = str(problem.get("detail") or self.title or "no detail was given")
        """What failed, the value, and the fix."""
        self.pointer: str | None = problem.get("pointer")
        """JSON pointer into the request, where there is a place to point at."""
        self.request_id: str | None = problem.get("request_id")
        """What the server's logs call the request."""
        self.retry_after_s = retry_after_s
        """How long to stay away, in seconds; 0 where the server does not say."""
        where = f" at {self.pointer}" if self.pointer else ""
        name = f" (request {self.request_id})" if self.request_id else ""
        super().__init__(f"{status} {self.type}{where}: {self.detail}{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are made again from their message, which is not what this one is made of: workers send them home.
        return type(self), (self.status, self._problem, self.retry_after_s)

    @classmethod
    def from_body(cls, status: int, body: bytes, request_id: str | None, retry_after_s: float) -> ProblemError:
        """Reads the body of a refusal, whatever it is: a proxy in between may answer with a page."""
        try:
            problem = json.loads(body)
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {"detail": body[:200].decode("utf-8", "replace").strip()}
        problem.setdefault("request_id", request_id)
        return cls(status, problem, retry_after_s)


class ConnectionFailed(GradusError, ConnectionError):
    """The server could not be reached, or broke off, in the last of `max_attempts` tries."""


class DeadlineExceeded(GradusError, TimeoutError):
    """The time of a request is over, tries included. Its cause, where there is one, is the last failure."""


class ClientClosed(GradusError):
    """Another thread closed the client while this call was waiting for its answer."""


class UnexpectedAnswer(GradusError):
    """The answer is not what the API promises; the address is probably not a Gradus server's."""

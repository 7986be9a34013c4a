"""One logical request: sent until it is answered, refused, or out of time.

In: a method, a path, a body and a deadline. Out: decoded JSON, or one of the exceptions of `errors`. Every attempt of a
request carries the same body and the same Idempotency-Key, so that a repeat is never scored or counted twice.
Knows no field of the API.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx

from .errors import ConnectionFailed, DeadlineExceeded, GradusError, ProblemError, UnexpectedAnswer

RETRIED = frozenset({429, 502, 503})
"""Busy, draining, or a proxy without a server behind it. Everything else says the same the next time."""


@dataclass(frozen=True)
class Options:
    """How a client behaves."""

    deadline_ms: int = 60_000
    """Time for a request with all its tries, in milliseconds; also told to the server. See `Deadline`."""
    max_items: int = 256
    """Trajectories per request; a group is never parted, even if it is larger."""
    max_bytes: int = 32 << 20
    """Bytes of trajectories per request, before compression."""
    max_concurrency: int = 256
    """Requests in flight at once, over all calls of a client."""
    max_call_concurrency: int = 8
    """Requests of one call in flight at once: they are the large ones, and a server bounds the bytes that it takes."""
    max_attempts: int | None = None
    """Tries per request; `None`: as many as there is time for."""
    backoff_ms: int = 100
    """Longest first wait between tries, in milliseconds; it doubles from try to try, and the wait is drawn below it."""
    max_backoff_ms: int = 5_000
    """Longest wait that is not the server's own wish, in milliseconds."""
    gzip_bytes: int | None = 256 << 10
    """Bodies from this size on are compressed, in bytes; `None`: never."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} is out of range; it must be 1 or more")


@dataclass(frozen=True)
class Request:
    """What is asked."""

    method: str
    path: str
    body: bytes | None = None
    """JSON."""
    idempotency_key: str | None = None
    """1 to 256 printable ASCII characters."""
    query: Mapping[str, str | int] | None = None


class Deadline:
    """How long a request may take.

    Requests that wait for a slot must not be lost because others are slow, nor wait for a server that is gone. So the
    time of a waiting one starts anew with every answer that another one gets, and runs on once it has its slot.
    """

    def __init__(self, milliseconds: int) -> None:
        if milliseconds < 1:
            raise ValueError(f"deadline_ms = {milliseconds} is out of range; it must be 1 or more")
        self.milliseconds = milliseconds
        self.waiting = True
        """Whether the request has no slot yet."""
        self.failure: GradusError | None = None
        """Why the last try failed."""
        self._began = time.monotonic()

    def start_anew(self, at: float) -> None:
        """Counts from this time of the monotonic clock, if that is later."""
        self._began = max(self._began, at)

    def left_s(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self._began + self.milliseconds / 1000 - time.monotonic())

    def exceeded(self) -> DeadlineExceeded:
        """What to raise when it has passed."""
        last = f"; the last failure was: {self.failure}" if self.failure else ""
        exceeded = DeadlineExceeded(f"no answer within deadline_ms = {self.milliseconds}{last}")
        exceeded.__cause__ = self.failure
        return exceeded


class Transport:
    """Sends requests over one pool of connections; belongs to the event loop that first uses it."""

    def __init__(self, http: httpx.AsyncClient, options: Options) -> None:
        self._http = http
        self._options = options
        self._slots = asyncio.Semaphore(options.max_concurrency)
        self._answered_at = time.monotonic()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def send(self, request: Request, deadline_ms: int) -> Any:
        """Asks until there is an answer; raises one of the exceptions of `errors` when there is none to be had."""
        deadline = Deadline(deadline_ms)
        work = asyncio.ensure_future(self._in_turn(request, deadline))
        # Not `wait_for`, which may lose a cancellation before Python 3.12: the tries would go on.
        try:
            while not work.done():
                if deadline.waiting:
                    deadline.start_anew(self._answered_at)
                if deadline.left_s() == 0.0:
                    raise deadline.exceeded()
                await asyncio.wait({work}, timeout=deadline.left_s())
        except BaseException:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        return work.result()

    async def _in_turn(self, request: Request, deadline: Deadline) -> Any:
        """Takes a slot, and keeps it between the tries: coming back must not mean waiting again."""
        async with self._slots:
            deadline.start_anew(self._answered_at)
            deadline.waiting = False
            body, headers = self._encoded(request)
            for attempt in itertools.count(1):
                try:
                    return await self._attempt(request, body, headers)
                except _Passing as passing:
                    deadline.failure = passing.failure
                if attempt == self._options.max_attempts:
                    raise deadline.failure
                await asyncio.sleep(self._pause_s(attempt, deadline))

    def _encoded(self, request: Request) -> tuple[bytes | None, dict[str, str]]:
        headers = {"Accept": "application/json"}
        if request.idempotency_key is not None:
            headers["Idempotency-Key"] = request.idempotency_key
        body = request.body
        if body is None:
            return None, headers
        headers["Content-Type"] = "application/json"
        if self._options.gzip_bytes is not None and len(body) >= self._options.gzip_bytes:
            headers["Content-Encoding"] = "gzip"
            # The fastest level: the network between trainer and server is rarely slow.
            body = gzip.compress(body, compresslevel=1, mtime=0)
        return body, headers

    async def _attempt(self, request: Request, body: bytes | None, headers: dict[str, str]) -> Any:
        try:
            response = await self._http.request(
                request.method, request.path, content=body, headers=headers, params=request.query
            )
        except httpx.TransportError as error:
            raise _Passing(ConnectionFailed(f"{type(error).__name__}: {error or 'the connection broke'}")) from error
        if response.status_code not in RETRIED:
            self._answered_at = time.monotonic()
        return _read(response)

    def _pause_s(self, attempt: int, deadline: Deadline) -> float:
        """Full jitter, so that many trainers do not come back at once; a wish of the server comes first.

        Within the time that is left, so that the last try is near its end. Raises `DeadlineExceeded` where the wish is
        beyond it: waiting in vain would only delay the bad news.
        """
        wish_s = deadline.failure.retry_after_s if isinstance(deadline.failure, ProblemError) else 0.0
        left_s = deadline.left_s()
        if wish_s >= left_s:
            raise deadline.exceeded()
        ceiling_ms = min(self._options.max_backoff_ms, self._options.backoff_ms * 2 ** (attempt - 1))
        return wish_s + random.uniform(0, min(ceiling_ms / 1000, left_s - wish_s))


class _Passing(Exception):
    """A failure after which the same request may succeed."""

    def __init__(self, failure: GradusError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _read(response: httpx.Response) -> Any:
    if not response.is_success:
        header = response.headers
        wish_s = retry_after_s(header.get("retry-after"))
        problem = ProblemError.from_body(response.status_code, response.content, header.get("x-request-id"), wish_s)
        raise _Passing(problem) if response.status_code in RETRIED else problem
    try:
        return json.loads(response.content, parse_constant=_not_json)
    except ValueError as error:
        # An answer without a length that broke off looks like this.
        raise _Passing(ConnectionFailed(f"the answer is not whole, or not JSON: {error}")) from error


def _not_json(constant: str) -> NoReturn:
    raise UnexpectedAnswer(f"the answer holds {constant}, which is no JSON; this is not a Gradus server")


def retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number or a date; 0 where it says nothing that can be read."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(int(header)))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())

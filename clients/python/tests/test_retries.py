"""What happens when the server, or the network, does not do what it should."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest
from conftest import PARIS, Fault, FaultServer, problem, scored

from gradus_client import Client, ConnectionFailed, DeadlineExceeded, Options, ProblemError, UnexpectedAnswer
from gradus_client.transport import retry_after_s

Start = Callable[..., FaultServer]
QUICK = Options(backoff_ms=1, max_attempts=4, deadline_ms=5_000)


def test_429_is_tried_again_after_the_time_that_was_asked_for(faulty: Start) -> None:
    server = faulty(problem(429, **{"Retry-After": "1"}), scored(0.5))
    with Client(server.url, options=QUICK) as client:
        started = time.monotonic()
        assert client.score([PARIS]).rewards == [0.5]
    assert 1.0 <= time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    "fault",
    [
        problem(503),
        problem(429),
        Fault(502, body=b"<html>Bad Gateway</html>"),
        Fault(200, body=b'{"rubric":', cut=True),
        Fault(200, body=b'{"rubric":'),
    ],
    ids=["503", "429", "a proxy's 502", "half a body, cut", "half a body, whole length"],
)
def test_passing_failures_are_tried_again_as_the_same_request(faulty: Start, fault: Fault) -> None:
    server = faulty(fault, fault, scored(0.25))
    with Client(server.url, options=QUICK) as client:
        assert client.score([PARIS]).rewards == [0.25]
    assert len(server.seen) == 3
    assert len({request.headers["idempotency-key"] for request in server.seen}) == 1
    assert len({request.body for request in server.seen}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 504])
def test_refusals_are_final(faulty: Start, status: int) -> None:
    server = faulty(problem(status, **{"Retry-After": "0"}))
    with Client(server.url, options=QUICK) as client, pytest.raises(ProblemError) as refused:
        client.score([PARIS])
    assert (refused.value.status, refused.value.detail, refused.value.request_id) == (status, "come back later", "r-1")
    assert len(server.seen) == 1


def test_tries_are_bounded_and_the_last_failure_is_raised(faulty: Start) -> None:
    server = faulty(problem(503))
    with Client(server.url, options=QUICK) as client, pytest.raises(ProblemError) as refused:
        client.score([PARIS])
    assert refused.value.status == 503
    assert len(server.seen) == 4


def test_a_refusal_that_is_no_problem_document_is_still_told(faulty: Start) -> None:
    server = faulty(Fault(403, {"X-Request-Id": "r-9"}, b"<html>go away</html>"))
    with Client(server.url, options=QUICK) as client, pytest.raises(ProblemError) as refused:
        client.score([PARIS])
    assert (refused.value.detail, refused.value.request_id) == ("<html>go away</html>", "r-9")


def test_a_hanging_server_meets_the_deadline(faulty: Start) -> None:
    server = faulty(Fault(hang=True))
    with Client(server.url, options=QUICK) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="deadline_ms = 1000"):
            client.score([PARIS], deadline_ms=1000)
        assert 0.9 <= time.monotonic() - started < 4.0
        assert json.loads(server.seen[0].body)["deadline_ms"] == 1000


def test_a_server_that_drips_meets_the_deadline() -> None:
    """A byte now and then keeps every timeout of a single read from passing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                for _ in range(200):
                    connection.sendall(b" ")
                    time.sleep(0.05)
            except OSError:
                pass

    threading.Thread(target=drip, daemon=True).start()
    with listener, Client(f"http://127.0.0.1:{listener.getsockname()[1]}", options=QUICK) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.score([PARIS], deadline_ms=1_000)
        assert time.monotonic() - started < 4.0


def test_waiting_longer_than_the_deadline_is_not_begun(faulty: Start) -> None:
    server = faulty(problem(429, **{"Retry-After": "60"}))
    with Client(server.url, options=QUICK) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="come back later") as late:
            client.score([PARIS])
        assert time.monotonic() - started < 1.0
    assert isinstance(late.value.__cause__, ProblemError)


def test_nobody_listening_is_tried_and_then_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{free}", options=QUICK) as client, pytest.raises(ConnectionFailed):
        client.score([PARIS])


@pytest.mark.parametrize("fault", [problem(429), problem(503), Fault(502)], ids=["429", "503", "502"])
def test_tries_go_on_as_long_as_there_is_time(faulty: Start, fault: Fault) -> None:
    server = faulty(*[fault] * 20, scored(1.0))
    with Client(server.url, options=Options(backoff_ms=1, max_backoff_ms=10)) as client:
        assert client.score([PARIS]).rewards == [1.0]
    assert len(server.seen) == 21


def test_a_lost_server_is_told_when_the_time_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{free}", options=Options(backoff_ms=1, max_backoff_ms=10)) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="ConnectError") as late:
            client.score([PARIS], deadline_ms=800)
        assert 0.7 <= time.monotonic() - started < 3.0
    assert isinstance(late.value.__cause__, ConnectionFailed)


def test_a_wait_that_nobody_asked_for_leaves_time_for_a_try(faulty: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    server = faulty(problem(503), scored(1.0))
    with Client(server.url, options=Options(backoff_ms=60_000, max_backoff_ms=60_000, deadline_ms=1_000)) as client:
        assert client.score([PARIS]).rewards == [1.0]


def test_a_server_that_comes_up_late_is_waited_for() -> None:
    """The trainer is often faster than the server, and a restart takes its time."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    started: list[FaultServer] = []

    def start_late() -> None:
        time.sleep(1.0)
        started.append(FaultServer([scored(1.0)], port))
        started[0].serve_forever(0.01)

    threading.Thread(target=start_late, daemon=True).start()
    with Client(f"http://127.0.0.1:{port}", options=Options(backoff_ms=1, max_backoff_ms=20)) as client:
        assert client.score([PARIS]).rewards == [1.0]
    started[0].shutdown()
    started[0].server_close()


def test_an_answer_lost_on_the_way_is_not_counted_twice(url: str) -> None:
    """The first answer of the real server is cut; the second try gets the stored one."""
    tries: list[str] = []

    class Lossy(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.AsyncHTTPTransport()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self.inner.handle_async_request(request)
            tries.append(request.headers["idempotency-key"])
            if len(tries) == 1:
                await response.aread()
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            return response

        async def aclose(self) -> None:
            await self.inner.aclose()

    with Client(url, options=QUICK, transport=Lossy) as client:
        assert client.score([PARIS], run_id="lost-answer").rewards == [1.0]
    assert len(tries) == 2
    assert tries[0] == tries[1]
    assert httpx.get(f"{url}/runs/lost-answer", trust_env=False).json()["n"] == 1


def test_not_a_number_is_refused_and_not_tried_again(faulty: Start) -> None:
    server = faulty(Fault(body=scored(0.0).body.replace(b"0.0", b"NaN")))
    with Client(server.url, options=QUICK) as client, pytest.raises(UnexpectedAnswer, match="NaN"):
        client.score([PARIS])
    assert len(server.seen) == 1


@pytest.mark.parametrize("body", [b"[]", b"{}", b'"ok"', b"null"])
def test_an_answer_of_some_other_server_is_named(faulty: Start, body: bytes) -> None:
    server = faulty(Fault(body=body))
    with Client(server.url, options=QUICK) as client, pytest.raises(UnexpectedAnswer, match="POST /reward"):
        client.score([PARIS])


def test_too_few_results_are_no_answer(faulty: Start) -> None:
    server = faulty(scored(1.0))
    with Client(server.url, options=QUICK) as client, pytest.raises(UnexpectedAnswer):
        client.score([PARIS, PARIS])


def test_one_failed_batch_fails_the_call(faulty: Start) -> None:
    server = faulty(scored(1.0), problem(400))
    options = Options(max_items=1, max_concurrency=1, backoff_ms=1)
    with Client(server.url, options=options) as client, pytest.raises(ProblemError):
        client.score([PARIS] * 5)


def test_requests_in_flight_are_bounded(faulty: Start) -> None:
    server = faulty(Fault(hang=True))
    options = Options(max_items=1, max_concurrency=3, deadline_ms=1_000)
    with Client(server.url, options=options) as client, pytest.raises(DeadlineExceeded):
        client.score([PARIS] * 20)
    assert len(server.seen) == 3


def test_headers_of_a_request(faulty: Start) -> None:
    server = faulty(scored(1.0))
    with Client(server.url, token="secret", options=Options(gzip_bytes=1)) as client:
        client.score([PARIS], idempotency_key="mine", rubric="binary_em", step=3)
    headers = server.seen[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert headers["idempotency-key"] == "mine-0"
    assert headers["content-encoding"] == "gzip"
    body = json.loads(gzip.decompress(server.seen[0].body))
    assert body == {"rubric": "binary_em", "step": 3, "deadline_ms": 60_000, "trajectories": [PARIS]}


def test_retry_after_in_both_of_its_forms() -> None:
    assert retry_after_s(None) == 0.0
    assert retry_after_s("7") == 7.0
    assert retry_after_s("-7") == 0.0
    assert retry_after_s("soon") == 0.0
    at = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert 28.0 <= retry_after_s(format_datetime(at, usegmt=True)) <= 30.0

"""Requests that wait for each other: none is lost to the others, and none waits for a server that is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import PARIS, Fault, FaultServer, problem, scored

from gradus_client import AsyncClient, Client, DeadlineExceeded, Options, ProblemError
from gradus_client.adapters import common, verl

Start = Callable[..., FaultServer]
LOST = {"score": 0.0, "acc": 0.0, "valid": 0.0}


@pytest.fixture
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of adapters that have a second for a request, and four requests at once."""
    monkeypatch.setenv("GRADUS_DEADLINE_MS", "1000")
    monkeypatch.setenv("GRADUS_CONCURRENCY", "4")
    yield
    common.close()


async def samples(count: int, url: str) -> list[dict[str, float]]:
    """Samples awaited at once, as verl does it."""
    return await asyncio.gather(*(verl.compute_score("nq", "x", "Paris", None, url=url) for _ in range(count)))


@pytest.mark.usefixtures("four_at_once")
def test_samples_that_wait_for_each_other_are_all_scored(faulty: Start) -> None:
    found = asyncio.run(samples(26, faulty(scored(1.0, after_s=0.3)).url))
    assert [sample["valid"] for sample in found] == [1.0] * 26


@pytest.mark.usefixtures("four_at_once")
def test_samples_that_wait_for_a_server_that_is_gone_do_not_wait_one_after_the_other(faulty: Start) -> None:
    server = faulty(Fault(hang=True))
    started = time.monotonic()
    assert asyncio.run(samples(26, server.url)) == [LOST] * 26
    assert time.monotonic() - started < 3.0
    assert len(server.seen) <= 8


def test_many_samples_go_side_by_side(faulty: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_DEADLINE_MS", "2000")
    server = faulty(Fault(hang=True))
    assert asyncio.run(samples(100, server.url)) == [LOST] * 100
    assert len(server.seen) == 100
    common.close()


def test_a_call_of_many_requests_has_time_for_each(faulty: Start) -> None:
    server = faulty(scored(1.0, after_s=0.3))
    options = Options(max_items=1, max_concurrency=4, deadline_ms=1_000)
    with Client(server.url, options=options) as client:
        assert client.score([PARIS] * 20).rewards == [1.0] * 20


def test_requests_of_one_call_in_flight_are_bounded(faulty: Start) -> None:
    server = faulty(Fault(hang=True))
    with Client(server.url, options=Options(max_items=1, deadline_ms=500)) as client, pytest.raises(DeadlineExceeded):
        client.score([PARIS] * 20)
    assert len(server.seen) == 8


def test_a_request_keeps_its_slot_between_its_tries(faulty: Start) -> None:
    """Behind others it might find none in time."""
    server = faulty(problem(503), scored(1.0))

    async def both() -> list[list[float | None]]:
        async with AsyncClient(server.url, options=Options(max_concurrency=1, backoff_ms=200)) as client:
            calls = (client.score([PARIS], idempotency_key=key) for key in "ab")
            return [scores.rewards for scores in await asyncio.gather(*calls)]

    assert asyncio.run(both()) == [[1.0], [1.0]]
    assert [request.headers["idempotency-key"] for request in server.seen] == ["a-0", "a-0", "b-0"]


def test_the_first_failure_ends_a_call_that_waits(faulty: Start) -> None:
    server = faulty(scored(1.0, after_s=0.1), problem(400))
    with Client(server.url, options=Options(max_items=1, max_concurrency=2)) as client:
        started = time.monotonic()
        with pytest.raises(ProblemError):
            client.score([PARIS] * 50)
        assert time.monotonic() - started < 5.0
    assert len(server.seen) <= 6

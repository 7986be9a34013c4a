"""Closing a client that others are using, and the thread that its calls run in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import PARIS, Fault, FaultServer

from gradus_client import Client, ClientClosed, GradusError, portal
from gradus_client.portal import Portal

Start = Callable[..., FaultServer]


async def nothing() -> None:
    """Takes no time."""


def test_calls_that_wait_are_told_that_the_client_was_closed(faulty: Start) -> None:
    server = faulty(Fault(hang=True))
    client = Client(server.url)

    async def awaited() -> object:
        return await asyncio.wrap_future(client.portal.submit(client.asynchronous.score([PARIS])))

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.score, [PARIS]) for _ in range(3)]
        calls.append(pool.submit(lambda: asyncio.run(awaited())))
        while len(server.seen) < 4:
            time.sleep(0.01)
        started = time.monotonic()
        client.close()
        for call in calls:
            with pytest.raises(ClientClosed, match="closed before the answer"):
                call.result(5)
        assert time.monotonic() - started < 3.0
    assert issubclass(ClientClosed, GradusError)


def test_a_closed_client_may_be_used_again_and_leaves_no_thread(url: str) -> None:
    client = Client(url)
    for _ in range(3):
        assert client.score([PARIS]).rewards == [1.0]
        client.close()
        client.close()
        assert "gradus-client" not in [thread.name for thread in threading.enumerate()]


def test_what_is_submitted_while_the_thread_is_stopped_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other thread stops the loop after it was found and before it has the coroutine."""
    tested = Portal()
    tested.run(nothing())
    stopping = threading.Thread(target=lambda: tested.stop(nothing))
    submit = asyncio.run_coroutine_threadsafe

    def late(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
        if stopping.ident is None:
            stopping.start()
            stopping.join(0.3)
        return submit(coroutine, loop)

    monkeypatch.setattr(portal.asyncio, "run_coroutine_threadsafe", late)
    future = tested.submit(asyncio.sleep(0.5, "answered"))
    with pytest.raises(ClientClosed):
        future.result(5)
    stopping.join(5)
    assert not stopping.is_alive()


def test_calls_and_closing_at_once_always_end() -> None:
    tested = Portal()

    def call() -> int:
        try:
            return tested.submit(asyncio.sleep(0.001, 1)).result(10)
        except ClientClosed:
            return 0

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call) for _ in range(400)]
        for _ in range(40):
            tested.stop(nothing)
        assert sum(future.result(20) for future in calls) > 0
    tested.stop(nothing)

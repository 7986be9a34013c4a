"""Runs coroutines from ordinary code, on an event loop in a thread of its own.

In: a coroutine. Out: its result, or its exception. Works inside of a running event loop, from many threads at once,
and in a child after a fork. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from .errors import ClientClosed

Result = TypeVar("Result")


class Portal:
    """A thread with an event loop, started when first needed."""

    _lock: threading.Lock
    _thread: _Thread | None

    def __init__(self) -> None:
        self._forget()
        _portals.add(self)

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Starts a coroutine; the future may be waited for from anywhere."""
        # The lock is held until the loop has it: a loop that is stopped in between would never run it.
        with self._lock:
            if self._thread is None:
                self._thread = _Thread()
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(self._thread.guarded(coroutine), self._thread.loop)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Waits for a coroutine; stops it when the waiting is interrupted."""
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ends the thread: whoever waits gets `ClientClosed`, then `last` runs. The next call starts another one."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.stop(last)

    def _forget(self) -> None:
        """As new. Threads do not survive a fork, as data loaders and rollout workers do it; a lock may stay locked."""
        self._lock = threading.Lock()
        self._thread = None


class _Thread(threading.Thread):
    """Runs an event loop until it is stopped."""

    def __init__(self) -> None:
        super().__init__(name="gradus-client", daemon=True)
        self.loop = asyncio.new_event_loop()
        self._stopping = False

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def guarded(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The coroutine; if the loop stops before it ends, an exception that says so to whoever waits."""
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._stopping:
                raise ClientClosed("the client was closed before the answer came") from None
            raise

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ends everything that runs, then runs `last`, then ends."""
        try:
            asyncio.run_coroutine_threadsafe(self._end(last), self.loop).result()
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.join()

    async def _end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._stopping = True
        while running := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        await last()


_portals: weakref.WeakSet[Portal] = weakref.WeakSet()


def _forget_all() -> None:
    for portal in list(_portals):
        portal._forget()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forget_all)

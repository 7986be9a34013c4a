"""The clients: `AsyncClient` for coroutines, `Client` for everything else; both have the same methods.

In: trajectories as the API takes them (mappings), rewards, names of runs. Out: the values of `results`. A call is cut
into requests that run side by side and answers in the order of its arguments. Knows no trainer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from .batching import batches, encode
from .errors import UnexpectedAnswer
from .merging import merge
from .portal import Portal
from .results import GroupAdvantages, PromptValue, Scores
from .transport import Options, Request, Transport

Trajectory = Mapping[str, Any]
"""`messages` (or `prompt` and `response`), and what else `POST /reward` takes: `references`, `tools`, `group`, .."""
OnInvalid = Literal["null", "zero", "mean", "error"]
"""What `reward` holds for a trajectory that could not be scored; `error`: the call raises."""
Algorithm = Literal["vspo", "grpo", "dapo", "rloo", "dr_grpo"]
Rewards = Iterable[float | None]
MakesTransport = Callable[[], httpx.AsyncBaseTransport]
"""Such as `lambda: httpx.AsyncHTTPTransport(proxy="http://proxy:3128")`."""

Answer = TypeVar("Answer")


class AsyncClient:
    """Talks to one Gradus server. May be used from one event loop after the other; close it, or use `async with`."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        options: Options | None = None,
        transport: MakesTransport | None = None,
    ) -> None:
        """`token` goes as a bearer token; `transport` makes what replaces httpx's own.

        That is for proxies and private certificates. Connections belong to an event loop, so it is called for each, and
        after a fork and after `close`.
        """
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(f"base_url = {base_url!r} is no address of a server; give one such as http://host:8080")
        if transport is not None and not callable(transport):
            raise TypeError(
                f"transport = {transport!r} is a transport, and its connections belong to one event loop; "
                "give what makes one, such as lambda: httpx.AsyncHTTPTransport(..)"
            )
        self.options = options or Options()
        self._base_url = base_url
        self._encrypted = address.scheme == "https"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._make_transport = transport
        self._open: tuple[asyncio.AbstractEventLoop, Transport] | None = None

    async def score(
        self,
        trajectories: Iterable[Trajectory],
        *,
        rubric: str | Mapping[str, Any] | None = None,
        run_id: str | None = None,
        step: int | None = None,
        curriculum: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        on_invalid: OnInvalid = "null",
        deadline_ms: int | None = None,
        idempotency_key: str | None = None,
    ) -> Scores:
        """Scores trajectories, in their order.

        `rubric` is a name, `name@version` or a whole rubric; `curriculum` replaces `step`. A repeat of a call with the
        same `idempotency_key` and arguments gets the stored answer; without one, each call makes its own. `deadline_ms`
        is the time of each request that the call is cut into (see `Deadline`). Raises an exception of `errors` when a
        request failed for good; nothing of the call is returned then.
        """
        limit_ms = deadline_ms or self.options.deadline_ms
        fields = {
            "rubric": rubric,
            "run_id": run_id,
            "step": step if curriculum is None else None,
            "curriculum": curriculum,
            "tools": tools,
            "on_invalid": None if on_invalid == "null" else on_invalid,
            "deadline_ms": limit_ms,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        key = idempotency_key or uuid.uuid4().hex
        parts = batches(list(trajectories), self.options.max_items, self.options.max_bytes)
        requests = [
            Request("POST", "/reward", part.body(fields), idempotency_key=f"{key}-{number}")
            for number, part in enumerate(parts)
        ]
        answers = await self._send_all(requests, limit_ms)
        return merge(parts, answers)

    async def advantages(
        self,
        groups: Mapping[str, Rewards],
        *,
        algorithm: Algorithm = "vspo",
        seed: int = 0,
        max_reward: float = 1.0,
        vspo: Mapping[str, Any] | None = None,
        deadline_ms: int | None = None,
    ) -> list[GroupAdvantages]:
        """Advantages of the rewards of groups, in their order; what `gradus_client.vspo` computes without a server.

        `vspo` may hold `gamma`, `w_max`, `sigma_min`, `mode` and `sampling`.
        """
        asked = [{"group": group, "rewards": list(rewards)} for group, rewards in groups.items()]
        body: dict[str, Any] = {"algorithm": algorithm, "groups": asked, "seed": seed, "max_reward": max_reward}
        if vspo is not None:
            body["vspo"] = vspo
        answer = await self.ask(Request("POST", "/advantages", encode(body)), deadline_ms)
        return _read_list(GroupAdvantages.read, answer, "groups")

    async def run_prompts(
        self, run_id: str, *, order: str = "value", limit: int | None = None, deadline_ms: int | None = None
    ) -> list[PromptValue]:
        """What a run knows of its prompts, the most valuable first."""
        query: dict[str, str | int] = {"order": order}
        if limit is not None:
            query["limit"] = limit
        answer = await self.ask(Request("GET", _run(run_id) + "/prompts", query=query), deadline_ms)
        return _read_list(PromptValue.read, answer, "items")

    async def sample(self, run_id: str, count: int, *, seed: int = 0, deadline_ms: int | None = None) -> list[str]:
        """Draws the next prompts of a run by their value, with replacement; their groups, each as often as drawn."""
        request = Request("POST", _run(run_id) + "/sample", encode({"count": count, "seed": seed}))
        answer = await self.ask(request, deadline_ms)
        return _read_list(str, answer, "groups")

    async def openapi(self, *, deadline_ms: int | None = None) -> dict[str, Any]:
        """The server's OpenAPI document."""
        answer = await self.ask(Request("GET", "/openapi.json"), deadline_ms)
        return dict(answer)

    async def ask(self, request: Request, deadline_ms: int | None = None) -> Any:
        """What any other path answers, as decoded JSON."""
        return await self._sender().send(request, deadline_ms or self.options.deadline_ms)

    async def close(self) -> None:
        """Closes the connections; the client may be used again."""
        opened, self._open = self._open, None
        if opened is not None and opened[0] is asyncio.get_running_loop():
            await opened[1].close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _sender(self) -> Transport:
        loop = asyncio.get_running_loop()
        # Connections belong to a loop, and die with it.
        if self._open is None or self._open[0] is not loop:
            http = httpx.AsyncClient(
                base_url=self._base_url,
                headers=self._headers,
                transport=self._make_transport() if self._make_transport else None,
                timeout=None,  # the deadline of the call is the only limit
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.options.max_concurrency),
                verify=self._encrypted,  # certificates take long to load, and are of no use here
                trust_env=False,  # a proxy of the environment is for the internet, not for a cluster's own services
            )
            self._open = (loop, Transport(http, self.options))
        return self._open[1]

    async def _send_all(self, requests: Sequence[Request], deadline_ms: int) -> list[Any]:
        """All or nothing: the first failure stops the others."""
        sender = self._sender()
        slots = asyncio.Semaphore(self.options.max_call_concurrency)

        async def send(request: Request) -> Any:
            async with slots:
                return await sender.send(request, deadline_ms)

        tasks = [asyncio.ensure_future(send(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise


class Client:
    """`AsyncClient` for ordinary code: from any thread, inside of an event loop, after a fork."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        token: str | None = None,
        options: Options | None = None,
        transport: MakesTransport | None = None,
    ) -> None:
        """As `AsyncClient`."""
        self.asynchronous = AsyncClient(base_url, token=token, options=options, transport=transport)
        """What does the work; to be used through `portal` only."""
        self.portal = Portal()
        """Where it runs."""

    def score(
        self,
        trajectories: Iterable[Trajectory],
        *,
        rubric: str | Mapping[str, Any] | None = None,
        run_id: str | None = None,
        step: int | None = None,
        curriculum: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        on_invalid: OnInvalid = "null",
        deadline_ms: int | None = None,
        idempotency_key: str | None = None,
    ) -> Scores:
        """See `AsyncClient.score`."""
        return self.portal.run(
            self.asynchronous.score(
                trajectories,
                rubric=rubric,
                run_id=run_id,
                step=step,
                curriculum=curriculum,
                tools=tools,
                on_invalid=on_invalid,
                deadline_ms=deadline_ms,
                idempotency_key=idempotency_key,
            )
        )

    def advantages(
        self,
        groups: Mapping[str, Rewards],
        *,
        algorithm: Algorithm = "vspo",
        seed: int = 0,
        max_reward: float = 1.0,
        vspo: Mapping[str, Any] | None = None,
        deadline_ms: int | None = None,
    ) -> list[GroupAdvantages]:
        """See `AsyncClient.advantages`."""
        return self.portal.run(
            self.asynchronous.advantages(
                groups, algorithm=algorithm, seed=seed, max_reward=max_reward, vspo=vspo, deadline_ms=deadline_ms
            )
        )

    def run_prompts(
        self, run_id: str, *, order: str = "value", limit: int | None = None, deadline_ms: int | None = None
    ) -> list[PromptValue]:
        """See `AsyncClient.run_prompts`."""
        return self.portal.run(self.asynchronous.run_prompts(run_id, order=order, limit=limit, deadline_ms=deadline_ms))

    def sample(self, run_id: str, count: int, *, seed: int = 0, deadline_ms: int | None = None) -> list[str]:
        """See `AsyncClient.sample`."""
        return self.portal.run(self.asynchronous.sample(run_id, count, seed=seed, deadline_ms=deadline_ms))

    def openapi(self, *, deadline_ms: int | None = None) -> dict[str, Any]:
        """See `AsyncClient.openapi`."""
        return self.portal.run(self.asynchronous.openapi(deadline_ms=deadline_ms))

    def close(self) -> None:
        """Closes the connections and ends the thread; the client may be used again.

        Calls of other threads that are still waiting raise `ClientClosed`.
        """
        self.portal.stop(self.asynchronous.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(run_id: str) -> str:
    return f"/runs/{quote(run_id, safe='')}"


def _read_list(read: Any, answer: Any, name: str) -> list[Any]:
    try:
        return [read(item) for item in answer[name]]
    except (KeyError, TypeError) as error:
        raise UnexpectedAnswer(
            f"the answer has no list {name!r} of the shape that the API promises: {error!r}"
        ) from error

"""What OpenRLHF 0.11.2 and slime (August 2026) send, and how they try again: their behaviour in our own words.

In: samples, and addresses. Out: what the trainer would get. Waits are scaled down; their unscaled sum is kept. Knows
nothing of Gradus.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass
class Waits:
    """Sleeps a thousandth of the time, and counts all of it."""

    total_s: float = 0.0

    async def sleep(self, seconds: float) -> None:
        self.total_s += seconds
        await asyncio.sleep(seconds / 1000)


class OpenRlhf:
    """Shards for the addresses in turn, one request each, never without samples; five tries, a second apart.

    Before 0.11.2 the first shard went to the first address at every call, and the others got theirs empty.
    """

    timeout_s = 180.0
    tries = 5

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self._next = itertools.cycle(self.addresses)
        self.waits = Waits()

    async def rewards(self, queries: list[str], prompts: list[str], labels: list[Any]) -> list[dict[str, Any]]:
        """One answer per shard, at most as many as there are addresses."""
        size = -(-len(queries) // len(self.addresses))
        posts = []
        for start in range(0, len(queries), max(1, size)):
            part = slice(start, start + size)
            payload = {"query": queries[part], "prompts": prompts[part], "labels": labels[part]}
            posts.append(self._post(next(self._next), payload))
        return list(await asyncio.gather(*posts))

    async def _post(self, address: str, payload: dict[str, Any]) -> dict[str, Any]:
        for _ in range(self.tries):
            try:
                # A connection for each try.
                async with httpx.AsyncClient(timeout=self.timeout_s, trust_env=False) as http:
                    response = await http.post(address, json=payload)
                return dict(response.raise_for_status().json())
            except Exception:  # refusals of every kind are tried again, as they are there
                await self.waits.sleep(1)
        raise RuntimeError(f"no answer in {self.tries} tries")


class Slime:
    """One request per sample over at most 64 connections; ten tries of everything, doubling waits of at most 30 s."""

    timeout_s = 120.0
    tries = 10

    def __init__(self, address: str, reward_key: str | None = None) -> None:
        self.address = address
        self.reward_key = reward_key
        self.waits = Waits()

    async def rewards(self, samples: Sequence[dict[str, Any]]) -> list[Any]:
        """One answer per sample: a number, or, with a reward key, what stands there."""
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(timeout=self.timeout_s, limits=limits, trust_env=False) as http:
            answers = await asyncio.gather(*(self._post(http, sample) for sample in samples))
        return [answer if self.reward_key is None else answer[self.reward_key] for answer in answers]

    async def _post(self, http: httpx.AsyncClient, sample: dict[str, Any]) -> Any:
        payload = {"prompt": sample["prompt"], "response": sample["response"], "label": sample["label"]}
        for attempt in range(self.tries):
            try:
                return (await http.post(self.address, json=payload)).raise_for_status().json()
            except Exception:
                if attempt + 1 == self.tries:
                    raise
                await self.waits.sleep(min(2**attempt, 30) + random.random())
        return None

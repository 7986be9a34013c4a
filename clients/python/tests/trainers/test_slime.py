"""slime's own request code against POST /slime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from conftest import PROMPT, REPLIES, FaultServer, native, problem
from sent import Slime

from gradus_client import Client


@pytest.fixture
def address(url: str) -> str:
    return f"{url}/slime?rubric=short_form_qa"


def sample(reply: str, label: Any = "Paris", prompt: Any = PROMPT) -> dict[str, Any]:
    return {"prompt": prompt, "response": reply, "label": label}


def test_the_same_rewards_as_the_native_endpoint(client: Client, address: str) -> None:
    trainer = Slime(address)
    rewards = asyncio.run(trainer.rewards([sample(reply + "<|im_end|>") for reply in REPLIES * 16]))
    assert rewards == native(client, REPLIES * 16)
    assert trainer.waits.total_s == 0.0


def test_a_reward_key_picks_from_a_dictionary(client: Client, address: str) -> None:
    trainer = Slime(address + "&format=dict", reward_key="score")
    assert asyncio.run(trainer.rewards([sample(reply) for reply in REPLIES])) == native(client, REPLIES)


def test_prompts_may_be_messages(address: str) -> None:
    messages = [{"role": "user", "content": "Capital of France?"}]
    assert asyncio.run(Slime(address).rewards([sample(REPLIES[0], prompt=messages)])) == [1.0]


@pytest.mark.parametrize("label", ["Paris", ["Paris", "Rome"], {"ground_truth": "Paris"}, '{"ground_truth": "Paris"}'])
def test_labels_of_every_kind(address: str, label: object) -> None:
    assert asyncio.run(Slime(address).rewards([sample(REPLIES[0], label)])) == [1.0]


def test_a_sample_that_cannot_be_scored_costs_no_back_off(address: str) -> None:
    trainer = Slime(address + "&on_invalid=zero")
    (reward,) = asyncio.run(trainer.rewards([sample(REPLIES[0], {"ground_truth": 5, "tools": "broken"})]))
    assert isinstance(reward, float | int)
    assert trainer.waits.total_s == 0.0


def test_what_a_refusal_would_cost(faulty: Callable[..., FaultServer]) -> None:
    """Why permanent errors are answered with 200: this client tries a 400 ten times, for two and a half minutes."""
    server = faulty(problem(400))
    trainer = Slime(server.url)
    with pytest.raises(httpx.HTTPStatusError):
        asyncio.run(trainer.rewards([sample("x")]))
    assert len(server.seen) == 10
    assert 151.0 <= trainer.waits.total_s <= 160.0

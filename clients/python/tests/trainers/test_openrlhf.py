"""OpenRLHF's own request code against POST /get_reward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from conftest import PROMPT, REPLIES, FaultServer, native, problem
from sent import OpenRlhf

from gradus_client import Client


@pytest.fixture
def address(url: str) -> str:
    return f"{url}/get_reward?rubric=short_form_qa"


def test_the_same_rewards_as_the_native_endpoint(client: Client, address: str) -> None:
    queries = [PROMPT + reply + "<|im_end|>\n" for reply in REPLIES]
    trainer = OpenRlhf([address])
    (answer,) = asyncio.run(trainer.rewards(queries, [PROMPT] * 4, ["Paris"] * 4))
    assert answer["rewards"] == native(client, REPLIES)
    assert all(0.0 <= score <= 1.0 for score in answer["scores"])
    assert all(len(values) == 4 for values in answer["extra_logs"].values())
    assert trainer.waits.total_s == 0.0


def test_one_sample_at_a_time_as_the_rollout_engine_does(client: Client, address: str) -> None:
    async def engine() -> list[float]:
        trainer = OpenRlhf([address])
        found = [trainer.rewards([PROMPT + reply], [PROMPT], ["Paris"]) for reply in REPLIES * 16]
        return [answer["rewards"][0] for (answer,) in await asyncio.gather(*found)]

    assert asyncio.run(engine()) == native(client, REPLIES * 16)


def test_samples_go_to_the_addresses_in_turn(address: str) -> None:
    trainer = OpenRlhf([address, address.replace("short_form_qa", "binary_em")])

    async def one_by_one() -> list[float]:
        answers = [await trainer.rewards([PROMPT + REPLIES[1]], [PROMPT], ["Paris"]) for _ in range(4)]
        return [answer["rewards"][0] for (answer,) in answers]

    assert asyncio.run(one_by_one()) == pytest.approx([0.3, 0.0, 0.3, 0.0])
    assert asyncio.run(trainer.rewards([], [], [])) == []
    assert trainer.waits.total_s == 0.0


def test_older_versions_send_shards_without_samples(address: str) -> None:
    empty: dict[str, list[str]] = {"query": [], "prompts": [], "labels": []}
    answer = httpx.post(address, json=empty, trust_env=False).raise_for_status().json()
    assert (answer["rewards"], answer["scores"]) == ([], [])


def test_a_label_that_is_empty_is_none(url: str, address: str) -> None:
    """Without `--data.label_key` it sends "" for each."""
    prompt = PROMPT.replace("France", "Lilliput")
    line = {"prompt": "Capital of Lilliput?", "references": ["Mildendo"]}
    httpx.post(f"{url}/references", json=line, trust_env=False).raise_for_status()
    queries = [prompt + "<answer>Mildendo</answer>", PROMPT + REPLIES[0]]
    (answer,) = asyncio.run(OpenRlhf([address]).rewards(queries, [prompt, PROMPT], ["", ""]))
    assert (answer["rewards"], answer["extra_logs"]["valid"]) == ([1.0, 0.0], [1.0, 0.0])


@pytest.mark.parametrize("label", ["Paris", ["Paris", "Rome"], {"references": ["Paris"]}, '{"references": ["Paris"]}'])
def test_labels_of_every_kind(address: str, label: object) -> None:
    (answer,) = asyncio.run(OpenRlhf([address]).rewards([PROMPT + REPLIES[0]], [PROMPT], [label]))
    assert answer["rewards"] == [1.0]


def test_a_sample_that_cannot_be_scored_costs_no_back_off(address: str) -> None:
    trainer = OpenRlhf([address + "&on_invalid=zero"])
    (answer,) = asyncio.run(trainer.rewards([PROMPT + REPLIES[0]], [PROMPT], [{"references": 5, "tools": "broken"}]))
    assert len(answer["rewards"]) == 1
    assert trainer.waits.total_s == 0.0


def test_what_a_refusal_would_cost(faulty: Callable[..., FaultServer]) -> None:
    """Why permanent errors are answered with 200: this client tries a 400 five times, a second apart."""
    server = faulty(problem(400))
    trainer = OpenRlhf([server.url])
    with pytest.raises(RuntimeError):
        asyncio.run(trainer.rewards(["q"], ["p"], ["l"]))
    assert (len(server.seen), trainer.waits.total_s) == (5, 5.0)

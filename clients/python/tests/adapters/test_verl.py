"""verl's reward functions, and its advantage estimator; verl itself is a stand-in with the registry of 0.9.1."""

from __future__ import annotations

import asyncio
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gradus_client import vspo
from gradus_client.adapters import common, verl

KEYS = {"score", "acc", "valid"}
RIGHT = "<answer>Paris</answer>"


def test_one_sample_awaited_or_not(environment: str) -> None:
    awaited = asyncio.run(verl.compute_score("nq", RIGHT, {"target": ["Paris"]}, {"num_turns": 2}))
    assert awaited == verl.compute_score_sync("nq", RIGHT, ["Paris"]) == {"score": 1.0, "acc": 1.0, "valid": 1.0}


def test_many_samples_awaited_at_once_agree_with_the_batch(environment: str) -> None:
    solutions = [RIGHT, "<answer>Rome</answer>", "Paris", "<answer>Paris it is</answer>"] * 4

    async def together() -> list[dict[str, float]]:
        return await asyncio.gather(*(verl.compute_score("nq", text, "Paris", None) for text in solutions))

    batch = verl.compute_score_batch(["nq"] * 16, solutions, ["Paris"] * 16, [None] * 16, rubric="short_form_qa")
    assert asyncio.run(together()) == batch
    assert len({sample["score"] for sample in batch}) > 2


def test_every_sample_has_the_same_keys(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_FALLBACK", "-0.5")
    lost = {"score": -0.5, "acc": 0.0, "valid": 0.0}
    malformed = {"messages": [{"role": "assistant", "content": 5}]}
    found = verl.compute_score_batch(["nq"] * 2, [RIGHT] * 2, ["Paris"] * 2, [None, malformed])
    assert found == [{"score": 1.0, "acc": 1.0, "valid": 1.0}, lost]
    assert {frozenset(sample) for sample in found} == {frozenset(KEYS)}


def test_a_server_that_is_gone_costs_the_samples_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_DEADLINE_MS", "50")
    gone = "http://127.0.0.1:9"
    lost = {"score": 0.0, "acc": 0.0, "valid": 0.0}
    assert verl.compute_score_sync("nq", RIGHT, "Paris", url=gone) == lost
    assert asyncio.run(verl.compute_score("nq", RIGHT, "Paris", {}, url=gone)) == lost
    common.close()


def test_a_number_that_json_lacks_costs_no_other_sample(environment: str) -> None:
    def extra(arguments: Any) -> dict[str, Any]:
        calls = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
        return {"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}

    extras = [{"prompt": "q"}, extra({"x": float("nan")}), extra({"x": object()})]
    found = verl.compute_score_batch(["nq"] * 3, [RIGHT] * 3, ["Paris"] * 3, extras)
    assert [(sample["score"], sample["valid"]) for sample in found] == [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]


def test_the_length_comes_from_the_extra_info(environment: str, sent: list[dict[str, Any]]) -> None:
    for tokens in (np.int64(7), 7, float("nan"), None):
        assert verl.compute_score_sync("nq", RIGHT, "Paris", {"response_tokens": tokens})["score"] == 1.0
    assert [item.get("response_tokens") for item in sent] == [7, 7, None, None]


def test_prompt_and_tools_come_from_the_extra_info(environment: str) -> None:
    messages = [
        {"role": "user", "content": "Capital?"},
        {"role": "assistant", "content": '<tool_call>{"name": "f", "arguments": {}}</tool_call>'},
        {"role": "tool", "content": "Paris"},
        {"role": "assistant", "content": RIGHT},
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    good = verl.compute_score_sync("nq", "", "Paris", {"messages": messages, "tools": [tool]})
    bad = verl.compute_score_sync("nq", "", "Paris", {"messages": messages, "tools": [{"type": "function"}]})
    assert good["score"] == 1.0
    assert bad["score"] < 1.0


def test_a_text_that_kept_its_special_tokens_replaces_the_one_that_lost_them(environment: str) -> None:
    """verl decodes a broken call without its marker, which is no call then, and no fault."""
    broken = '[TOOL_CALLS][{"name": "f", </s>[TOOL_RESULTS]Paris[/TOOL_RESULTS]' + RIGHT + "</s>"
    bare = '[{"name": "f", Paris' + RIGHT
    assert verl.compute_score_sync("nq", bare, "Paris", {"prompt": "Capital?"})["score"] == 1.0
    kept = {"prompt": "Capital?", "gradus_solution_str": broken}
    assert verl.compute_score_sync("nq", bare, "Paris", kept)["score"] < 0.5
    assert asyncio.run(verl.compute_score("nq", bare, "Paris", kept))["score"] < 0.5


def test_no_column_of_a_data_set_replaces_what_the_policy_wrote(environment: str) -> None:
    for column in ({"solution_str": RIGHT}, {"gradus_solution_str": float("nan")}, {"gradus_solution_str": 7}):
        assert verl.compute_score_sync("nq", "I have no idea", "Paris", column)["score"] < 0.5
        assert verl.compute_score_sync("nq", RIGHT, "Paris", {**column, "solution_str": "no idea"})["score"] == 1.0


def test_a_sample_whose_columns_nobody_can_read_is_one_without_a_score(environment: str) -> None:
    lost = {"score": 0.0, "acc": 0.0, "valid": 0.0}
    odd = {"messages": float("nan")}
    assert asyncio.run(verl.compute_score("nq", RIGHT, "Paris", odd)) == lost
    found = verl.compute_score_batch(["nq"] * 3, [RIGHT] * 3, ["Paris"] * 3, [None, odd, None])
    assert [sample["valid"] for sample in found] == [1.0, 0.0, 1.0]
    assert found[1] == lost


def test_rows_of_parquet_files_have_arrays_at_any_depth(environment: str) -> None:
    def array(*values: Any) -> np.ndarray:
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found

    call = {"type": "function", "function": {"name": "f", "arguments": {"ids": np.array([1, 2])}}}
    messages = array(
        {"role": "user", "content": "Capital?", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": array(call)},
        {"role": "tool", "content": "Paris", "tool_calls": None},
        {"role": "assistant", "content": RIGHT, "tool_calls": None},
    )
    ids = {"type": "array", "items": {"type": "integer"}, "minItems": np.int64(2)}
    parameters = {"type": "object", "properties": {"ids": ids}, "required": array("ids")}
    tools = array({"type": "function", "function": {"name": "f", "parameters": parameters}})
    truth = {"target": np.array(["Paris", "Lutetia"])}
    extra = {"messages": messages, "tools": tools, "group": np.int64(3)}
    assert verl.compute_score_sync("nq", "", truth, extra)["score"] == 1.0
    ids["minItems"] = np.int64(3)
    assert verl.compute_score_sync("nq", "", truth, extra)["score"] < 1.0


def planned(rewards: list[list[float]], seed: int) -> tuple[np.ndarray, np.ndarray, list[str], list[Any]]:
    """Token-level rewards and masks of groups q0, q1, .. of answers of one to four tokens."""
    flat = [reward for group in rewards for reward in group]
    lengths = [1 + place % 4 for place in range(len(flat))]
    mask = np.array([[float(token < length) for token in range(4)] for length in lengths])
    token_rewards = np.zeros_like(mask)
    for place, length in enumerate(lengths):
        token_rewards[place, length - 1] = flat[place]
    index = [f"q{number}" for number, group in enumerate(rewards) for _ in group]
    answers = vspo.advantages({f"q{number}": group for number, group in enumerate(rewards)}, seed=seed)
    return token_rewards, mask, index, answers


def test_the_estimator_gives_the_gradient_of_the_plan() -> None:
    """Summed over tokens and divided by all tokens, as verl does, it is the loss of the method, section by section."""
    rewards = [[0.0, 1.0, 0.2], [0.5, 0.5, 0.5], [0.9, 1.0, 1.0], [0.0, 0.0, 0.0], [0.3, 0.7, 0.1]]
    seed = next(verl._seeds) + 1
    token_rewards, mask, index, answers = planned(rewards, seed)
    advantages, returns = verl.compute_vspo_advantage(token_rewards, mask, np.array(index, dtype=object), config=None)
    assert advantages is returns
    assert advantages.shape == mask.shape
    logprobs = np.linspace(-2.0, -0.1, mask.size).reshape(mask.shape)
    verls = -(advantages * logprobs * mask).sum() / mask.sum()
    total, tokens = 0.0, 0.0
    for number, answer in enumerate(answers):
        rows = [place for place, group in enumerate(index) if group == f"q{number}"]
        for place, advantage in zip(rows, answer.advantages, strict=True):
            assert advantage is not None
            total -= answer.factor * advantage * float((logprobs[place] * mask[place]).sum())
        tokens += answer.multiplicity * float(mask[rows].sum())
    assert verls == pytest.approx(total / tokens, rel=1e-12)
    assert sum(answer.multiplicity for answer in answers) == len(rewards)


def test_settings_of_the_estimator_are_read_from_verls_configuration() -> None:
    token_rewards, mask, index, _ = planned([[0.0, 1.0], [1.0, 1.0]], 0)
    once, _ = verl.compute_vspo_advantage(token_rewards, mask, index, config={"vspo": {"gamma": 0.0}})
    twice, _ = verl.compute_vspo_advantage(token_rewards, mask, index, config={"vspo": {"gamma": 1.0}})
    assert np.allclose(twice, 2 * once)
    with pytest.raises(TypeError, match="gama"):
        verl.compute_vspo_advantage(token_rewards, mask, index, config={"vspo": {"gama": 1.0}})


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A stand-in for verl.trainer.ppo.core_algos."""
    registered: dict[str, Any] = {}
    core = types.ModuleType("verl.trainer.ppo.core_algos")
    core.register_adv_est = lambda name: lambda function: registered.setdefault(name, function)  # type: ignore[attr-defined]
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        package = types.ModuleType(name)
        package.__path__ = []
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.core_algos", core)
    yield registered


def test_importing_registers_where_verl_is(registry: dict[str, Any]) -> None:
    fresh = importlib.reload(verl)
    assert registry == {"vspo": fresh.compute_vspo_advantage}


def test_without_verl_nothing_is_registered() -> None:
    assert verl.register() is False

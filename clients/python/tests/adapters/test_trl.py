"""The reward function of TRL, called as TRL 1.16.0 calls it, and ms-swift's as 4.6.0 does."""

from __future__ import annotations

import json
import logging
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import PARIS

from gradus_client import Client, Options
from gradus_client.adapters import trl

QUESTION = [{"role": "user", "content": "Capital of France?"}]


def reply(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def test_conversations_and_texts_give_the_same_rewards(environment: str) -> None:
    texts = ["<answer>Paris</answer>", "<answer>Rome</answer>", "dunno"]
    truths = ["Paris"] * 3
    chats = trl.reward(
        prompts=[QUESTION] * 3,
        completions=[reply(text) for text in texts],
        completion_ids=[[1]] * 3,
        ground_truth=truths,
    )
    plain = trl.reward(prompts=["Capital of France?"] * 3, completions=texts, ground_truth=truths)
    assert chats == plain
    assert chats[0] == 1.0
    assert all(reward is not None and reward < 0.5 for reward in chats[1:])


def test_turns_with_tools(environment: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": {"query": "France"}}}
    completion = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "search", "content": "Paris is the capital."},
        *reply("<answer>Paris</answer>"),
    ]
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "required": ["query"]}}}
    known, unknown = ([tool], [{**tool, "function": {"name": "other"}}])
    rewards = trl.reward([QUESTION] * 2, [completion] * 2, ground_truth=["Paris"] * 2, tools=[known, unknown])
    assert rewards[0] == 1.0
    assert rewards[1] is not None
    assert rewards[1] < 1.0
    # ms-swift's data sets hold them as text.
    texts = [json.dumps(known), "none"]
    as_text = trl.reward([QUESTION] * 2, [completion] * 2, ground_truth=["Paris"] * 2, tools=texts)
    assert as_text[0] == 1.0
    assert as_text[1] is None


def test_a_label_that_is_missing_costs_its_own_item(environment: str) -> None:
    completions = [reply("<answer>Paris</answer>")] * 2
    assert trl.reward([QUESTION] * 2, completions, ground_truth=[float("nan"), "Paris"]) == [None, 1.0]


@pytest.mark.parametrize(
    "label",
    ["Paris", ["Rome", "Paris"], {"target": ["Paris"]}, '{"references": ["Paris"], "group": "g"}', {"answer": "Paris"}],
    ids=["text", "list", "mapping", "JSON text", "mapping of a text"],
)
def test_labels_as_data_sets_hold_them(environment: str, label: object) -> None:
    assert trl.reward([QUESTION], [reply("<answer>Paris</answer>")], ground_truth=[label]) == [1.0]


def test_a_column_named_label_is_no_label_unless_it_was_chosen(environment: str) -> None:
    right = reply("<answer>Paris</answer>")
    other = {"label": ["Rome"]}
    assert trl.reward([QUESTION], [right], ground_truth=["Paris"], **other) == [1.0]
    texts, conversations = ["<answer>Paris</answer>"], [[*QUESTION, *right]]
    assert trl.SwiftReward()(texts, messages=conversations, solution=["Paris"], **other) == [1.0]
    assert trl.reward([QUESTION], [right], label=["Paris"]) == [None]
    assert trl.reward_function(label="label")([QUESTION], [right], label=["Paris"], ground_truth=["Rome"]) == [1.0]


def test_numbers_are_labels_too(environment: str) -> None:
    assert trl.reward([QUESTION], [reply("<answer>42</answer>")], ground_truth=[42]) == [1.0]


def test_what_cannot_be_scored_is_none_and_warns(environment: str, caplog: pytest.LogCaptureFixture) -> None:
    broken = [{"role": "assistant", "content": {"no": "content"}}]
    with caplog.at_level(logging.WARNING):
        rewards = trl.reward([QUESTION] * 2, [reply("<answer>Paris</answer>"), broken], ground_truth=["Paris"] * 2)
    assert rewards == [1.0, None]
    assert "1 of 2 not scored; item_malformed" in caplog.text


@pytest.mark.parametrize("completions", [[reply("x")], [object()], [None]], ids=["no server", "an object", "none"])
def test_nothing_ever_reaches_the_trainer(completions: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    nowhere = Client("http://127.0.0.1:9", options=Options(max_attempts=1))
    with nowhere, caplog.at_level(logging.WARNING):
        reward = trl.reward_function(nowhere)
        assert reward([QUESTION], completions, ground_truth=["Paris"]) == [None]
    assert "no rewards for 1 completions" in caplog.text


def test_columns_that_are_too_short_are_no_exception(environment: str) -> None:
    assert trl.reward([QUESTION] * 2, [reply("x")] * 2, ground_truth=["Paris"]) == [None, None]


def test_the_trainers_log_gets_the_stages(environment: str, client: Client) -> None:
    logged: dict[str, float] = {}
    reward = trl.reward_function(client, rubric="short_form_qa", run_id="trl-log", label="answer", name="search")
    assert reward.__name__ == "search"
    reward(
        [QUESTION] * 2,
        [reply("<answer>Paris</answer>"), reply("<answer>Rome</answer>")],
        answer=["Paris"] * 2,
        trainer_state=SimpleNamespace(global_step=17),
        log_metric=logged.__setitem__,
        log_extra=lambda *_: None,
    )
    assert logged["search/invalid"] == 0.0
    assert logged["search/answer_format"] == 1.0
    assert logged["search/exact_match"] == 0.5


def test_a_reward_function_goes_to_another_process(environment: str) -> None:
    """As `AsyncGRPOTrainer` sends it."""
    made = trl.reward_function(rubric="short_form_qa", label="answer", name="search")
    sent = pickle.loads(pickle.dumps(made))
    right = [reply("<answer>Paris</answer>")]
    assert (sent.__name__, sent([QUESTION], right, answer=["Paris"])) == ("search", [1.0])
    assert pickle.loads(pickle.dumps(trl.reward)) is trl.reward
    with Client(environment) as mine, pytest.raises(TypeError, match="GRADUS_URL"):
        pickle.dumps(trl.reward_function(mine))


def test_completions_of_one_prompt_are_one_group(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []

    class Watched(Client):
        def score(self, trajectories: Any, **keywords: Any) -> Any:
            sent.extend(trajectories)
            return super().score(sent, **keywords)

    with Watched(environment) as watched:
        other = [{"role": "user", "content": "Capital of Italy?"}]
        trl.reward_function(watched)([QUESTION, QUESTION, other], [reply("a")] * 3, [[1, 2]] * 3)
    assert sent[0]["group"] == sent[1]["group"] != sent[2]["group"]
    assert sent[0]["response_tokens"] == 2


def test_ms_swift_passes_completions_first_and_whole_conversations(environment: str) -> None:
    reward = trl.SwiftReward(args=None)
    conversations = [[*QUESTION, *reply("<answer>Paris</answer>")], PARIS["messages"]]
    completions = ["<answer>Paris</answer>"] * 2
    assert reward(completions, messages=conversations, solution=["Paris", "Paris"], trainer_state=None) == [1.0, 1.0]
    assert reward(completions, solution=["Paris", "Rome"])[0] == 1.0

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
from gradus_client.adapters import common, trl

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


CALL_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def called(arguments: object) -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "Paris"}]
    return [*turns, *reply("<answer>Paris</answer>")]


@pytest.mark.parametrize("text", ['{"n": NaN}', '{"n": [-Infinity]}', '{"n": 1e999}'])
def test_a_number_that_json_lacks_makes_a_broken_call_and_costs_no_other(environment: str, text: str) -> None:
    """TRL decodes calls with Python's reader, which takes them."""
    completions = [called({"n": 1}), called(json.loads(text)), called(text)]
    good, decoded, as_text = trl.reward(
        [QUESTION] * 3, completions, ground_truth=["Paris"] * 3, tools=[[CALL_TOOL]] * 3
    )
    assert (good, decoded) == (1.0, 0.0)
    assert decoded == as_text


@pytest.mark.parametrize(
    "odd",
    [called({1, 2}), [{"role": "assistant", "content": [object()]}], object(), 5],
    ids=["arguments", "a part", "an object", "a number"],
)
def test_what_nobody_can_read_costs_its_own_item(environment: str, odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    logged: dict[str, float] = {}
    right = reply("<answer>Paris</answer>")
    columns = {"ground_truth": ["Paris"] * 3, "log_metric": logged.__setitem__}
    assert trl.reward([QUESTION] * 3, [right, odd, right], **columns) == [1.0, None, 1.0]
    assert "was not scored" in caplog.text
    assert logged["gradus/invalid"] == pytest.approx(1 / 3)


class Image:
    """What data sets hold of pictures: no JSON."""

    def __init__(self, pixels: bytes) -> None:
        self.tobytes = lambda: pixels


def seen(pixels: bytes) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": Image(pixels), "text": None}, {"type": "text", "text": "What colour?"}]
    return [{"role": "user", "content": parts}]


def test_images_stay_here_and_tell_prompts_apart(environment: str, sent: list[dict[str, Any]]) -> None:
    right = reply("<answer>Paris</answer>")
    shown = [{"role": "tool", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,AA=="}}]}, *right]
    rewards = trl.reward(
        [seen(b"red"), seen(b"red"), seen(b"blue"), seen(b"red")],
        [right, [*reply("?"), *shown], right, "<answer>Paris</answer>"],
        ground_truth=["Paris"] * 4,
    )
    assert rewards == [1.0] * 4
    groups = [item["group"] for item in sent]
    assert groups[0] == groups[1] == groups[3] != groups[2]
    kept = [{"type": "image", "text": None}, {"type": "text", "text": "What colour?"}]
    assert sent[0]["messages"][0]["content"] == sent[3]["prompt"][0]["content"] == kept
    assert sent[1]["messages"][2]["content"] == [{"type": "image_url"}]


def test_a_prompt_keeps_its_name() -> None:
    """Runs that go on know their prompts by it."""
    names = [trl._prompt_key(prompt) for prompt in ("Capital of France?", QUESTION)]
    assert names == ["117e482caabcf0e8", "a7e014047f40d660"]


def test_all_is_invalid_where_the_server_is_lost(environment: str) -> None:
    logged: list[tuple[str, float]] = []

    def log_metric(name: str, value: float) -> None:
        logged.append((name, value))

    broken = [{"role": "assistant", "content": 5}]
    assert trl.reward([QUESTION], [broken], log_metric=log_metric) == [None]
    with Client("http://127.0.0.1:9", options=Options(max_attempts=1)) as nowhere:
        assert trl.reward_function(nowhere, name="lost")([QUESTION], [reply("x")], log_metric=log_metric) == [None]
    assert logged == [("gradus/invalid", 1.0), ("lost/invalid", 1.0)]


def test_a_log_that_fails_costs_no_reward(environment: str, caplog: pytest.LogCaptureFixture) -> None:
    right = [reply("<answer>Paris</answer>")]
    assert trl.reward([QUESTION], right, ground_truth=["Paris"], log_metric={}.__getitem__) == [1.0]
    assert "were not logged" in caplog.text


def test_beside_other_functions_the_groups_mean_may_stand_for_what_is_invalid(environment: str) -> None:
    logged: dict[str, float] = {}
    completions = [
        reply("<answer>Paris</answer>"),
        reply("<answer>Rome</answer>"),
        [{"role": "assistant", "content": 5}],
    ]
    rewards = trl.reward_function(on_invalid="mean")(
        [QUESTION] * 3, completions, ground_truth=["Paris"] * 3, log_metric=logged.__setitem__
    )
    assert rewards == pytest.approx([1.0, 0.3, 0.65])
    assert (logged["gradus/invalid"], logged["gradus/exact_match"]) == (pytest.approx(1 / 3), 0.5)


class Trainer:
    """What TRL's trainer is to a reward function: the object whose method logs."""

    def __init__(self, training: bool) -> None:
        self.model = SimpleNamespace(training=training)

    def log_metric(self, name: str, value: float) -> None:
        """As `_log_metric`."""


def test_evaluation_stays_out_of_the_run(environment: str, client: Client) -> None:
    """Or its prompts would be drawn for training."""
    reward = trl.reward_function(rubric="short_form_qa", run_id="trl-evaluation")
    completions = [reply("<answer>Paris</answer>"), reply("<answer>Rome</answer>")]
    for training, group in ((True, "train"), (False, "test")):
        columns = {"ground_truth": ["Paris"] * 2, "group": [group] * 2, "log_metric": Trainer(training).log_metric}
        assert reward([QUESTION] * 2, completions, **columns) == pytest.approx([1.0, 0.3])
    assert [prompt.group for prompt in client.run_prompts("trl-evaluation")] == ["train"]


def test_what_the_server_finds_odd_is_told_once(
    environment: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "_told", set())
    for completions in ([reply("dunno")], [reply("dunno"), reply("dunno again")], [called({})]):
        trl.reward([QUESTION] * len(completions), completions)
    told = [record.getMessage() for record in caplog.records]
    assert [text.split("`")[1] for text in told] == ["references", "tools"]


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


def test_completions_of_one_prompt_are_one_group(environment: str, sent: list[dict[str, Any]]) -> None:
    other = [{"role": "user", "content": "Capital of Italy?"}]
    trl.reward([QUESTION, QUESTION, other], [reply("a")] * 3, [[1, 2]] * 3)
    assert sent[0]["group"] == sent[1]["group"] != sent[2]["group"]
    assert sent[0]["response_tokens"] == 2


def test_ms_swift_passes_completions_first_and_whole_conversations(environment: str) -> None:
    reward = trl.SwiftReward(args=None)
    conversations = [[*QUESTION, *reply("<answer>Paris</answer>")], PARIS["messages"]]
    completions = ["<answer>Paris</answer>"] * 2
    assert reward(completions, messages=conversations, solution=["Paris", "Paris"], trainer_state=None) == [1.0, 1.0]
    assert reward(completions, solution=["Paris", "Rome"])[0] == 1.0


@pytest.mark.parametrize("content", [{"name": "f", "arguments": {}}, '{"name": "f", "parameters": {}}'], ids=type)
def test_ms_swifts_roles_are_the_apis(environment: str, sent: list[dict[str, Any]], content: object) -> None:
    """Its preprocessing turns OpenAI's calls into these."""
    call = {"role": "tool_call", "content": content}
    earlier = [*QUESTION, call, {"role": "tool", "content": "Paris"}, *reply("Paris.")]
    turns = [*reply("Let me see."), call, call, {"role": "tool_response", "content": "Paris"}]
    conversation = [*earlier, *QUESTION, *turns, *reply("<answer>Paris</answer>")]
    broken = [*QUESTION, {"role": "tool_call", "content": '{"name": "f'}, *reply("<answer>Paris</answer>")]
    columns = {"solution": ["Paris"] * 2, "tools": [[CALL_TOOL]] * 2}
    assert trl.SwiftReward()(["?"] * 2, messages=[conversation, broken], **columns) == [1.0, 0.0]
    function = {"type": "function", "function": {"name": "f", "arguments": {}}}
    own = {"role": "assistant", "content": "Let me see.", "tool_calls": [function, function]}
    assert sent[0]["messages"][1]["tool_calls"] == [function]
    assert sent[0]["messages"][5:7] == [own, {"role": "tool", "content": "Paris"}]
    assert trl.ms_swift.parted(conversation)[1][0] == own


def test_ms_swifts_lengths_are_sent(environment: str, sent: list[dict[str, Any]]) -> None:
    columns = {
        "solution": ["Paris"] * 3,
        "response_token_ids": [[[1, 2], [3]], [1, 2], []],
        "is_truncated": [False, True, False],
    }
    conversations = [[*QUESTION, *reply("<answer>Paris</answer>")]] * 3
    assert trl.SwiftReward()(["?"] * 3, messages=conversations, **columns) == [1.0] * 3
    assert [item.get("response_tokens") for item in sent] == [3, 2, None]
    assert [item["truncated"] for item in sent] == [False, True, False]


def test_ms_swift_may_get_the_groups_mean(environment: str) -> None:
    class Mean(trl.SwiftReward):
        on_invalid = "mean"

    conversations = [[*QUESTION, *reply("<answer>Paris</answer>")], [*QUESTION, {"role": "assistant", "content": 5}]]
    assert Mean()(["?"] * 2, messages=conversations, solution=["Paris"] * 2) == [1.0, 1.0]

"""Trinity, SkyRL, verifiers, ART and OpenRLHF: stand-ins have the shape that the adapters were read against."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import PARIS, REPOSITORY

from gradus_client import GradusError
from gradus_client.adapters import art, common, easyr1, openrlhf, skyrl, trinity, verifiers

RIGHT = "<answer>Paris</answer>"
WRONG = "<answer>Rome</answer>"
QUESTION = {"role": "user", "content": "Capital of France?"}


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Puts a module, and its parents, where they are imported from."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        module = types.ModuleType(".".join(parts[:length]))
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for member, value in members.items():
        setattr(sys.modules[name], member, value)


def test_trinity_sums_the_parts_to_the_reward(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class RewardFn:
        """Trinity's base class."""

    stand_in(monkeypatch, "trinity.common.rewards.reward_fn", RewardFn=RewardFn)
    trinity._reward_class.cache_clear()
    reward = trinity.GradusReward(rubric="short_form_qa")
    assert isinstance(reward, RewardFn)
    assert sum(reward(response=RIGHT, truth="Paris", prompt="Capital?").values()) == pytest.approx(1.0)
    wrong = reward(response=WRONG, truth="Paris")
    assert set(wrong) == {"tool_parse", "tool_schema", "answer_format", "la_bleu"}
    assert sum(wrong.values()) == pytest.approx(0.3)
    trinity._reward_class.cache_clear()


def test_trinity_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_DEADLINE_MS", "50")
    monkeypatch.setenv("GRADUS_FALLBACK", "-1")
    assert trinity.compute(RIGHT, "Paris", None, {"url": "http://127.0.0.1:9"}) == {"gradus_invalid": -1.0}
    common.close()
    with pytest.raises(AttributeError):
        trinity.Something  # noqa: B018


def test_easyr1_gets_its_keys_for_every_response(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(response: Any) -> dict[str, float]:
        inputs = [{"response": response, "response_length": 3, "ground_truth": "Paris"}]
        return easyr1.compute_score(inputs, rubric="short_form_qa")[0]

    assert scored(RIGHT) == {"overall": 1.0, "format": 1.0, "accuracy": 1.0}
    wrong = scored(WRONG)
    assert (wrong["format"], wrong["accuracy"]) == (1.0, 0.0)
    assert wrong["overall"] == pytest.approx(0.3)
    assert scored("Paris")["format"] == 0.0
    assert easyr1.compute_score([]) == []
    monkeypatch.setenv("GRADUS_DEADLINE_MS", "50")
    monkeypatch.setenv("GRADUS_FALLBACK", "-1")
    lost = easyr1.compute_score([{"response": RIGHT, "ground_truth": "Paris"}] * 2, url="http://127.0.0.1:9")
    assert lost == [{"overall": -1.0, "format": 0.0, "accuracy": 0.0}] * 2
    common.close()


def test_skyrl_ends_after_one_turn_with_the_reward(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class BaseTextEnv:
        """SkyRL's base class."""

    stand_in(monkeypatch, "skyrl_gym.envs.base_text_env", BaseTextEnv=BaseTextEnv)
    skyrl._environment_class.cache_clear()
    env = skyrl.GradusEnv(extras={"reward_spec": {"method": "rule", "ground_truth": "Paris"}})
    assert isinstance(env, BaseTextEnv)
    prompt, metadata = env.init([QUESTION])
    assert (prompt, metadata) == ([QUESTION], {})
    step = env.step(RIGHT)
    assert (step["reward"], step["done"], step["observations"]) == (1.0, True, [])
    assert (step["metadata"]["exact_match"], step["metadata"]["gradus_valid"]) == (1.0, 1.0)
    # SkyRL logs these, and nothing of the metadata.
    assert env.get_metrics() == step["metadata"]
    env.init([QUESTION])
    assert env.get_metrics() == {}
    skyrl._environment_class.cache_clear()


def test_skyrl_gets_a_number_for_what_cannot_be_scored(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_FALLBACK", "-0.25")
    malformed = [QUESTION, {"role": "assistant", "content": 5}]
    assert skyrl.reward(malformed, {}) == (-0.25, {"gradus_valid": 0.0})


@dataclass
class Model:
    """What verifiers' pydantic messages can do."""

    fields: dict[str, Any]

    def model_dump(self, mode: str, exclude_none: bool) -> dict[str, Any]:
        assert (mode, exclude_none) == ("json", True)
        return dict(self.fields)


def trace(*turns: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> types.SimpleNamespace:
    branch = types.SimpleNamespace(tools=[Model(tool) for tool in tools or []])
    return types.SimpleNamespace(messages=[Model(turn) for turn in turns], branches=[branch], is_truncated=False)


def test_verifiers_scores_a_trace_with_its_flat_calls(environment: str) -> None:
    call = {"id": "1", "type": "function", "name": "search", "arguments": '{"query": "France"}'}
    turns = [
        QUESTION,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Paris"},
        {"role": "assistant", "content": RIGHT},
    ]
    tool = {"name": "search", "description": "", "parameters": {"type": "object", "required": ["query"]}}
    task = types.SimpleNamespace(answer="Paris")
    assert asyncio.run(verifiers.reward(task, trace(*turns, tools=[tool]))) == 1.0
    assert asyncio.run(verifiers.reward(task, trace(*turns, tools=[{**tool, "name": "other"}]))) < 1.0


def test_verifiers_raises_for_what_cannot_be_scored(environment: str) -> None:
    broken = trace(QUESTION, {"role": "assistant", "content": 5})
    with pytest.raises(verifiers.Unscored, match="item_malformed"):
        asyncio.run(verifiers.reward(types.SimpleNamespace(answer="Paris"), broken))


def test_verifiers_rubric_of_the_first_generation(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "verifiers", Rubric=lambda funcs, **keywords: (funcs, keywords))
    (function,), keywords = verifiers.rubric("short_form_qa", weights=[1.0])
    assert keywords == {"weights": [1.0]}
    completion = [{"role": "assistant", "content": RIGHT}]
    assert asyncio.run(function(prompt=[QUESTION], completion=completion, answer="Paris", state={})) == 1.0
    truth = {"ground_truth": ["Paris"]}
    assert asyncio.run(function(prompt=[QUESTION], completion=completion, answer="", info=truth)) == 1.0


@dataclass
class ArtTrajectory:
    """What ART's trajectories have and can do."""

    turns: list[dict[str, Any]]
    metadata: dict[str, Any]
    reward: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None

    @property
    def exchanges(self) -> bool:
        """Whether calls were captured; then the tools are theirs."""
        return False

    def messages(self) -> list[dict[str, Any]]:
        return self.turns

    def model_copy(self, update: dict[str, Any]) -> ArtTrajectory:
        return replace(self, **update)


@dataclass
class CapturedTrajectory(ArtTrajectory):
    """A trajectory of captured calls, which ART 0.5.23 has: `tools` is None, and a history has them instead."""

    offered: list[dict[str, Any]] | None = None

    @property
    def exchanges(self) -> bool:
        return True

    def history(self) -> Any:
        def as_chat_completions_history() -> Any:
            if self.offered is None:
                raise ValueError("Raw Completions history has no chat-message structure")
            return types.SimpleNamespace(messages=self.turns, tools=self.offered)

        return types.SimpleNamespace(as_chat_completions_history=as_chat_completions_history)

    def messages(self) -> list[dict[str, Any]]:
        return list(self.history().as_chat_completions_history().messages)


class ArtGroup:
    """ART's group."""

    def __init__(self, trajectories: list[ArtTrajectory], *, metadata: dict[str, Any] | None = None) -> None:
        self.trajectories = trajectories
        self.metadata = metadata or {}


def rollout(content: Any) -> ArtTrajectory:
    return ArtTrajectory([QUESTION, {"role": "assistant", "content": content}], {"ground_truth": "Paris"})


def test_art_scores_a_group_and_leaves_out_what_cannot_be_scored(environment: str) -> None:
    group = ArtGroup([rollout(RIGHT), rollout(5), rollout(WRONG)], metadata={"task": "q"})
    found = asyncio.run(art.score_group(group))
    assert [trajectory.reward for trajectory in found.trajectories] == pytest.approx([1.0, 0.3])
    assert found.trajectories[0].metrics["gradus/exact_match"] == 1.0
    assert found.metadata == {"task": "q"}
    assert [trajectory.reward for trajectory in group.trajectories] == [0.0] * 3
    assert asyncio.run(art.score_group(ArtGroup([rollout(5)]))) is None


def test_art_finds_the_tools_of_captured_calls(environment: str, caplog: pytest.LogCaptureFixture) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"query": "France"}'}}
    turns = [
        QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Paris"},
        {"role": "assistant", "content": RIGHT},
    ]
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "required": ["query"]}}}
    truth = {"ground_truth": "Paris"}
    older = ArtTrajectory(turns, truth, tools=[tool])
    newer = CapturedTrajectory(turns, truth, offered=[tool])
    odd = CapturedTrajectory(turns, truth)
    found = asyncio.run(art.score_group(ArtGroup([older, newer, odd])))
    assert [trajectory.reward for trajectory in found.trajectories] == [1.0, 1.0]
    assert "Raw Completions" in caplog.text
    assert asyncio.run(art.score_group(ArtGroup([odd]))) is None


def test_art_drops_a_group_when_the_server_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADUS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GRADUS_DEADLINE_MS", "50")
    assert asyncio.run(art.score_group(ArtGroup([rollout(RIGHT)]))) is None
    common.close()


def test_openrlhf_reads_the_response_out_of_the_query(environment: str) -> None:
    prompt = "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n"
    queries = [prompt + RIGHT + "<|im_end|>\n<|endoftext|>", prompt + WRONG]
    found = openrlhf.reward_func(queries, [prompt] * 2, ["Paris", '{"references": ["Paris"]}'])
    assert list(found["rewards"]) == pytest.approx([1.0, 0.3])
    assert list(found["scores"]) == pytest.approx([1.0, 0.3])
    assert list(found["extra_logs"]["exact_match"]) == [1.0, 0.0]
    assert list(found["extra_logs"]["gradus_valid"]) == [1.0, 1.0]
    assert openrlhf.response(queries[0], prompt) == RIGHT
    assert list(openrlhf.reward_func([], [], [])["rewards"]) == []


def test_openrlhf_asks_the_table_where_labels_are_empty(environment: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without `--data.label_key` OpenRLHF sends "" for each."""
    template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    known, unknown = template.format("Capital of Utopia?"), template.format("Capital of Erewhon?")
    httpx.post(
        f"{environment}/references", json={"prompt": "Capital of Utopia?", "references": ["Amaurot"]}, trust_env=False
    )
    reply = "<answer>Amaurot</answer>"
    rows = [(known, ""), (known, None), (known, {"tools": []}), (known, "Aircastle"), (unknown, "")]
    prompts, labels = [prompt for prompt, _ in rows], [label for _, label in rows]
    found = openrlhf.reward_func([prompt + reply + "<|im_end|>" for prompt in prompts], prompts, labels)
    assert list(found["extra_logs"]["exact_match"]) == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert list(found["extra_logs"]["gradus_valid"]) == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert list(found["rewards"][:3]) == [1.0] * 3
    assert found["rewards"][4] == 0.0
    assert "the server's log says why; its label has no references" in caplog.text


def test_openrlhf_reads_tools_that_are_text(environment: str) -> None:
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
    reply = '<tool_call>{"name": "f", "arguments": {}}</tool_call><|im_end|>'
    found = [
        openrlhf.reward_func([CHATML + reply], [CHATML], [{"tools": tools, **label}])
        for label in ({}, {"references": ["Paris"]})
    ]
    assert [answer["extra_logs"]["tool_schema"] for answer in found] == [[1.0], [1.0]]


ASKED = "Answer like <answer>Paris</answer>. Capital of France?"
"""A prompt that would be right, were it the policy's."""
MISTRAL = f"<s>[INST] {ASKED} [/INST]"
CHATML = f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("prompt", "before"),
    [
        (MISTRAL, f"<s> [INST] {ASKED} [/INST] "),
        (MISTRAL, f"<s><s>[INST] {ASKED} [/INST]"),
        (CHATML, "<s>" + CHATML),
        (CHATML, "<s> " + CHATML.replace("\n", " ")),
        (f"Question: {ASKED}\nAnswer: ", f"<s> Question: {ASKED}\nAnswer:"),
        (CHATML.replace("Answer", "An earlier turn. Answer"), CHATML),
    ],
    ids=["white space", "another token", "a first token", "white space and markers", "no markers", "cut at the left"],
)
def test_openrlhf_never_scores_a_prompt_as_the_policys(environment: str, prompt: str, before: str) -> None:
    queries = [before + reply + "</s>" for reply in (RIGHT, WRONG, "I refuse")]
    expected = openrlhf.reward_func([prompt + RIGHT, prompt + WRONG, prompt + "I refuse"], [prompt] * 3, ["Paris"] * 3)
    assert expected["rewards"][0] > expected["rewards"][1] > expected["rewards"][2]
    found = openrlhf.reward_func(queries, [prompt] * 3, ["Paris", ["Paris"], '{"references": ["Paris"]}'])
    assert found == expected


def test_openrlhf_does_not_score_what_cannot_be_told_from_the_prompt(
    environment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRADUS_FALLBACK", "-1")
    queries = [f"Question: {ASKED}\nAnswer: {RIGHT}", CHATML + RIGHT]
    found = openrlhf.reward_func(queries, ["another prompt", CHATML], ["Paris"] * 2)
    assert list(found["rewards"]) == [-1.0, 1.0]
    assert list(found["extra_logs"]["gradus_valid"]) == [0.0, 1.0]
    assert list(found["extra_logs"]["exact_match"]) == [0.0, 1.0]
    assert "does not begin with its prompt" in caplog.text
    monkeypatch.setenv("GRADUS_RUBRIC", "no_such_rubric")
    with pytest.raises(GradusError, match="no_such_rubric"):
        openrlhf.reward_func(queries[:1], ["another prompt"], ["Paris"])


LABELS = json.loads((REPOSITORY / "tests/cases/labels.json").read_text())
"""The cases that the server reads, too."""


@pytest.mark.parametrize("case", LABELS, ids=[case["name"] for case in LABELS])
def test_labels_are_read_as_the_server_reads_them(case: dict[str, Any]) -> None:
    # A callable's requests wait for nobody.
    expected = {name: value for name, value in case["read"].items() if name != "group_size"}
    assert common.read_label(case["label"]) == expected


def test_what_is_given_beside_a_label_wins_but_for_the_group() -> None:
    label = {"answer": "x", "tools": [], "group_id": "own"}
    found = common.trajectory("q", "a", label, tools=[{"name": "f"}], group="made up")
    assert found == {
        "references": ["x"],
        "tools": [{"name": "f"}],
        "group": "own",
        "prompt": "q",
        "response": "a",
    }


def test_a_completion_of_nothing_is_an_answer() -> None:
    assert common.trajectory("q", [])["messages"][-1] == {"role": "assistant", "content": ""}
    assert common.trajectory(None, [])["messages"] == []
    # Where there is no completion at all, nothing is made up for the server to score.
    assert common.trajectory("q", None)["messages"] == [{"role": "user", "content": "q"}]


def test_labels_may_come_from_parquet() -> None:
    assert common.read_label(np.array(["Paris"])) == {"references": ["Paris"]}
    nested = {"references": np.array([]), "ground_truth": {"target": np.array(["Paris"])}, "group": float("nan")}
    assert common.read_label(nested) == {"references": ["Paris"]}
    assert common.read_label(float("nan")) == {}


def test_a_text_completion_keeps_its_prompt() -> None:
    assert common.trajectory("q", "a", "x", tools=None) == {"references": ["x"], "prompt": "q", "response": "a"}
    turns = common.trajectory([QUESTION], [{"role": "assistant", "content": RIGHT}], ["Paris"])
    assert turns == PARIS

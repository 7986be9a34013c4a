"""Scores with the generated client: the example of the README, and a batch written with its types.

In: the address of a running server. Out: nothing; a wrong reward ends the program with an error.
"""

import json
import sys
from pathlib import Path

from gradus_generated import Client
from gradus_generated.api.scoring import score_trajectories
from gradus_generated.models import (
    CalledFunction,
    ContentPart,
    JsonObject,
    Message,
    NativeToolCall,
    OnInvalid,
    Problem,
    RewardRequest,
    RewardResponse,
    Tool,
    Trajectory,
)
from gradus_generated.types import UNSET

EXAMPLE = Path(__file__).resolve().parents[3] / "tests/cases/trajectories/hermes_trailing_comma.json"


def main(address: str) -> None:
    with Client(base_url=address, httpx_args={"trust_env": False}) as client:
        readme = score(client, RewardRequest.from_dict(json.loads(EXAMPLE.read_text())))
        assert readme.rewards == [0.05], readme.rewards
        result = readme.results[0]
        assert result.failed_stage == "tool_parse", result.failed_stage
        assert [call.parsed for call in result.tool_calls] == [False, True]
        assert result.answer.text == "DHL", result.answer

        batch = RewardRequest(trajectories=[answer("Paris"), answer("Rome"), Trajectory()], on_invalid=OnInvalid.NULL)
        scored = score(client, batch)
        assert scored.rewards == [1.0, scored.rewards[1], None], scored.rewards
        arguments = scored.results[0].tool_calls[0].arguments
        assert isinstance(arguments, JsonObject) and arguments.to_dict() == {"query": "capital"}, arguments
        assert scored.rewards[1] is not None and scored.rewards[1] < 0.5, scored.rewards
        assert scored.results[2].errors[0].code == "item_malformed"

        refused = score_trajectories.sync(client=client, body=RewardRequest(trajectories=[], rubric="no_such_rubric"))
        assert isinstance(refused, Problem), refused
        assert (refused.status, refused.pointer) == (404, "/rubric"), refused
    print("python: the rewards are right")


def score(client: Client, request: RewardRequest) -> RewardResponse:
    answer = score_trajectories.sync(client=client, body=request)
    assert isinstance(answer, RewardResponse), answer
    return answer


def answer(text: str) -> Trajectory:
    question = Message(role="user", content="Capital of France?")
    function = CalledFunction(name="search", arguments=JsonObject.from_dict({"query": "capital"}))
    parts = [ContentPart(type_="text", text="I look it up.")]
    call = Message(role="assistant", content=parts, tool_calls=[NativeToolCall(function=function)])
    found = Message(role="tool", content="Paris")
    reply = Message(role="assistant", content=f"<answer>{text}</answer>", tool_calls=UNSET)
    tool = Tool(type_="function", function=JsonObject.from_dict({"name": "search", "parameters": {"type": "object"}}))
    row = JsonObject.from_dict({"row": 7})
    return Trajectory(messages=[question, call, found, reply], tools=[tool], references=["Paris"], metadata=row)


if __name__ == "__main__":
    main(sys.argv[1])

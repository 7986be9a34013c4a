"""The reward server that one would write in Python today, to be measured beside Gradus on the same bodies.

POST /reward on FastAPI and uvicorn (uvloop, httptools): pydantic-core reads the bytes into TypedDicts, orjson writes,
jsonschema-rs checks arguments, sacreBLEU and SQuAD's normalisation score the answer. It prints its address as its first
line. It scores on the event loop: with one process, threads would only add to the work.
"""

import argparse
import gc
import re
import socket
import string
from collections import Counter
from typing import Any

import jsonschema_rs
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import TypeAdapter
from sacrebleu.metrics import BLEU
from typing_extensions import NotRequired, TypedDict

TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


class Message(TypedDict):
    role: str
    content: NotRequired[str | None]


class Function(TypedDict):
    name: str
    parameters: dict[str, Any]


class Tool(TypedDict):
    function: Function


class Trajectory(TypedDict):
    id: str
    messages: list[Message]
    tools: list[Tool]
    references: list[str]


class RewardRequest(TypedDict):
    trajectories: list[Trajectory]


read = TypeAdapter(RewardRequest).validate_json
sentence_bleu = BLEU(effective_order=True).sentence_score
validators = {}  # the schema's JSON -> arguments -> bool


def validator(schema):
    key = orjson.dumps(schema)
    if key not in validators:
        validators[key] = jsonschema_rs.Draft202012Validator(schema).is_valid
    return validators[key]


def count_calls(texts, schemas):
    """How many calls there are, how many parse, name a tool that was offered, and fit its schema."""
    calls = parsed = known = valid = 0
    used = {}  # of this trajectory: the key of a schema is made once
    for text in texts:
        for block in TOOL_CALL.findall(text):
            calls += 1
            try:
                call = orjson.loads(block)
                name, arguments = call["name"], call["arguments"]
            except (ValueError, KeyError, TypeError):
                continue
            if not isinstance(name, str) or not isinstance(arguments, dict):
                continue
            parsed += 1
            if name in schemas:
                known += 1
                if name not in used:
                    used[name] = validator(schemas[name])
                valid += used[name](arguments)
    return calls, parsed, known, valid


def words(text):
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def compare(answer, references):
    """Exact match, F1 and BLEU with the best reference."""
    exact = f1 = bleu = 0.0
    tokens = words(answer)
    for reference in references:
        expected = words(reference)
        exact = max(exact, float(tokens == expected))
        same = sum((Counter(tokens) & Counter(expected)).values())
        f1 = max(f1, 2 * same / (len(tokens) + len(expected)) if same else 0.0)
        bleu = max(bleu, sentence_bleu(answer, [reference]).score / 100)
    return exact, f1, bleu


def score(trajectory):
    texts = [m["content"] for m in trajectory["messages"] if m["role"] == "assistant" and m.get("content")]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in trajectory["tools"]}
    calls, parsed, known, valid = count_calls(texts, schemas)
    found = ANSWER.findall(texts[-1]) if texts else []
    answer = found[-1].strip() if found else None
    exact, f1, bleu = compare(answer, trajectory["references"]) if answer is not None else (0.0, 0.0, 0.0)
    well_formed = float(answer is not None and parsed == calls)
    tool = (parsed + known + 2 * valid) / (4 * calls) if calls else 1.0
    return {
        "id": trajectory["id"],
        "reward": 0.1 * well_formed + 0.3 * tool + well_formed * 0.6 * (exact or 0.7 * f1 + 0.2 * bleu),
        "format": well_formed, "tool": tool, "exact_match": exact, "f1": f1, "bleu": bleu,
        "calls": calls, "parsed": parsed, "known": known, "valid": valid, "answer": answer,
    }


app = FastAPI()


@app.post("/reward")
async def reward(request: Request) -> Response:
    body = read(await request.body())
    return Response(orjson.dumps({"results": [score(t) for t in body["trajectories"]]}), media_type="application/json")


@app.get("/healthz")
async def healthz() -> Response:
    return Response()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    listener = socket.create_server(("127.0.0.1", options.parse_args().port))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

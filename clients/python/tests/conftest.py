"""A real server for all tests, started from the binary that GRADUS_BIN names, and a server that does as it is told."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gradus_client import Client
from gradus_client.adapters import common

REPOSITORY = Path(__file__).resolve().parents[3]
PARIS = {
    "messages": [
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": "<answer>Paris</answer>"},
    ],
    "references": ["Paris"],
}
MALFORMED = {"messages": 5}
PROMPT = "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n"
REPLIES = ["<answer>Paris</answer>", "<answer>Rome</answer>", "Paris", "<answer>Paris it is</answer>"]
"""What the trainers' own requests are tried with."""


def answer(text: str, reference: str = "Paris", **fields: Any) -> dict[str, Any]:
    """A trajectory whose policy gives this answer."""
    turns = [
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": f"<answer>{text}</answer>"},
    ]
    return {"messages": turns, "references": [reference], **fields}


def native(client: Client, replies: list[str]) -> list[float | None]:
    """What replies to `PROMPT` are worth through POST /reward."""
    items = [{"prompt": "Capital of France?", "response": reply, "references": ["Paris"]} for reply in replies]
    return client.score(items, rubric="short_form_qa").rewards


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running Gradus server with a store."""
    binary = os.environ.get("GRADUS_BIN")
    if not binary:
        pytest.fail("GRADUS_BIN must name the gradus binary, such as target/debug/gradus")
    database = tmp_path_factory.mktemp("store") / "gradus.db"
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--store", f"sqlite:{database}", "--log", "warn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        assert first.startswith("http://"), f"the server did not print its address but {first!r}"
        yield first
        process.terminate()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client of the real server."""
    with Client(url) as opened:
        yield opened


@pytest.fixture
def environment(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment that the adapters read, pointing at the real server."""
    monkeypatch.setenv("GRADUS_URL", url)
    yield url
    common.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the adapters give to `Client.score`, which scores it all the same."""
    found: list[dict[str, Any]] = []
    score = Client.score

    def watched(self: Client, trajectories: Any, **keywords: Any) -> Any:
        items = list(trajectories)
        found.extend(items)
        return score(self, items, **keywords)

    monkeypatch.setattr(Client, "score", watched)
    return found


@dataclass
class Fault:
    """One thing that a bad server does."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    """Announce twice the body, and hang up."""
    hang: bool = False
    """Never answer."""
    after_s: float = 0.0
    """How long to think before the answer."""


@dataclass
class Seen:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class FaultServer(ThreadingHTTPServer):
    """Plays its faults in order, then the last one forever; remembers what it was sent."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faults: list[Fault], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.faults = list(faults)
        self.seen: list[Seen] = []
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            self.server.seen.append(Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            fault = self.server.faults.pop(0) if len(self.server.faults) > 1 else self.server.faults[0]
        if fault.hang:
            self.server.released.wait(30)
            self.close_connection = True
            return
        time.sleep(fault.after_s)
        self.send_response(fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(fault.body) * (2 if fault.cut else 1)))
        self.end_headers()
        self.wfile.write(fault.body)
        self.close_connection = fault.cut

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def faulty() -> Iterator[Callable[..., FaultServer]]:
    """Starts a server with these faults."""
    started: list[FaultServer] = []

    def start(*faults: Fault) -> FaultServer:
        server = FaultServer(list(faults))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.released.set()
        server.shutdown()
        server.server_close()


def problem(status: int, **headers: str) -> Fault:
    """A refusal as Gradus writes it."""
    document = {"type": "urn:gradus:problem:busy", "title": "Busy", "status": status, "detail": "come back later"}
    body = json.dumps({**document, "request_id": "r-1"}).encode()
    return Fault(status, {"Content-Type": "application/problem+json", **headers}, body)


def scored(*rewards: float | None, after_s: float = 0.0) -> Fault:
    """An answer to POST /reward with these rewards."""
    empty = {"stages": [], "metrics": {}, "components": {}, "steps": [], "answer": {"text": None}, "errors": []}
    results = [{**empty, "reward": reward, "valid": reward is not None} for reward in rewards]
    rubric = {"name": "short_form_qa", "version": "b3-00000000"}
    body = json.dumps({"rubric": rubric, "rewards": rewards, "results": results, "groups": []}).encode()
    return Fault(body=body, after_s=after_s)

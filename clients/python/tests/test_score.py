"""Scoring against a real server: order, validity, agreement of all ways to call, counting."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import MALFORMED, PARIS, REPOSITORY, answer

from gradus_client import AsyncClient, Client, ConnectionFailed, Options, ProblemError
from gradus_client.batching import encode


def mixed(count: int) -> list[dict[str, object]]:
    """Right, wrong, nearly right and formless answers, each told apart by its id."""
    kinds = [
        answer("Paris"),
        answer("Rome"),
        answer("Paris it is"),
        {"messages": [{"role": "assistant", "content": "dunno"}]},
    ]
    return [{**kinds[place % 4], "id": str(place)} for place in range(count)]


def test_the_readme_example_has_its_reward(client: Client) -> None:
    import json

    case = json.loads((REPOSITORY / "tests/cases/trajectories/hermes_trailing_comma.json").read_text())
    scores = client.score(case["trajectories"], rubric=case["rubric"])
    assert scores.rewards == [0.05]
    result = scores.results[0]
    assert result.failed_stage == "tool_parse"
    assert result.answer == "DHL"
    assert [stage.name for stage in result.stages] == ["tool_parse", "tool_schema", "answer_format", "la_bleu"]
    assert sum(result.components.values()) == pytest.approx(0.05, rel=1e-9)
    assert scores.rubric is not None
    assert scores.rubric.name == "short_form_qa"


def test_nothing_is_scored_without_a_request() -> None:
    with Client("http://127.0.0.1:9") as nowhere:
        assert nowhere.score([]).rewards == []


def test_what_cannot_be_scored_is_none_and_says_where(client: Client) -> None:
    scores = client.score([PARIS, MALFORMED, answer("Rome")])
    assert scores.rewards[0] == 1.0
    assert scores.rewards[1] is None
    assert scores.rewards[2] is not None
    bad = scores.results[1]
    assert not bad.valid
    assert (bad.errors[0].code, bad.errors[0].pointer) == ("item_malformed", "/trajectories/1/messages")


def test_on_invalid_is_the_callers_choice(client: Client) -> None:
    group = [{**PARIS, "group": "q"}, {**MALFORMED, "group": "q"}]
    assert client.score(group, on_invalid="zero").rewards == [1.0, 0.0]
    assert client.score(group, on_invalid="mean").rewards == [1.0, 1.0]
    with pytest.raises(ProblemError) as refused:
        client.score(group, on_invalid="error")
    assert refused.value.status == 422


def test_text_that_is_no_unicode_is_an_invalid_item(client: Client) -> None:
    assert client.score([answer("\ud800"), PARIS]).rewards == [None, 1.0]


def test_a_refusal_carries_the_problem_document(client: Client) -> None:
    with pytest.raises(ProblemError) as refused:
        client.score([PARIS], rubric="no_such_rubric")
    error = refused.value
    assert (error.status, error.type, error.pointer) == (404, "urn:gradus:problem:unknown-rubric", "/rubric")
    assert "no_such_rubric" in error.detail
    assert error.request_id


def test_batches_keep_the_order_and_the_places_of_errors(url: str) -> None:
    items = mixed(101)
    items[50] = {**MALFORMED, "id": "50"}
    with Client(url) as whole, Client(url, options=Options(max_items=7, max_concurrency=3)) as cut:
        expected, found = whole.score(items), cut.score(items)
    assert [result.id for result in found.results] == [str(place) for place in range(101)]
    assert found.rewards == expected.rewards
    assert found.results[50].errors[0].pointer == "/trajectories/50/messages"


def test_large_bodies_go_compressed_and_score_the_same(url: str) -> None:
    items = [answer("Paris " * place, id=str(place)) for place in range(40)]
    with Client(url, options=Options(gzip_bytes=None)) as plain, Client(url, options=Options(gzip_bytes=1)) as packed:
        assert packed.score(items).rewards == plain.score(items).rewards


@pytest.mark.parametrize("callers", [1, 4, 64])
def test_all_ways_to_call_give_the_same_rewards(url: str, client: Client, callers: int) -> None:
    items = mixed(32)
    expected = client.score(items).rewards
    with ThreadPoolExecutor(callers) as pool:
        assert list(pool.map(lambda _: client.score(items).rewards, range(callers))) == [expected] * callers

    async def together() -> list[list[float | None]]:
        async with AsyncClient(url, options=Options(max_concurrency=64)) as asynchronous:
            answers = await asyncio.gather(*(asynchronous.score(items) for _ in range(callers)))
        return [scores.rewards for scores in answers]

    assert asyncio.run(together()) == [expected] * callers


def test_a_client_works_inside_of_an_event_loop_and_in_one_loop_after_the_other(url: str, client: Client) -> None:
    async def inside() -> list[float | None]:
        return client.score([PARIS]).rewards

    assert asyncio.run(inside()) == [1.0]
    asynchronous = AsyncClient(url)

    async def own() -> list[float | None]:
        try:
            return (await asynchronous.score([PARIS])).rewards
        finally:
            await asynchronous.close()

    assert [asyncio.run(own()), asyncio.run(own())] == [[1.0], [1.0]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks beside threads, as trainers do
def test_a_client_works_after_a_fork(client: Client) -> None:
    assert client.score([PARIS]).rewards == [1.0]
    assert in_a_child(client) == [1.0]


def in_a_child(client: Client) -> list[float | None]:
    """Rewards that a forked child gets."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=lambda: results.put(client.score([PARIS]).rewards))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    return list(results.get())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_transport_of_ones_own_is_made_for_each_loop(url: str) -> None:
    import httpx

    made: list[httpx.AsyncHTTPTransport] = []

    def make() -> httpx.AsyncHTTPTransport:
        made.append(httpx.AsyncHTTPTransport())
        return made[-1]

    asynchronous = AsyncClient(url, transport=make)

    async def own() -> list[float | None]:
        async with asynchronous:
            return (await asynchronous.score([PARIS])).rewards

    assert [asyncio.run(own()), asyncio.run(own())] == [[1.0], [1.0]]
    assert len(made) == 2
    with Client(url, transport=make) as client:
        assert client.score([PARIS]).rewards == [1.0]
        client.close()
        assert client.score([PARIS]).rewards == [1.0]
        assert len(made) == 4
        assert in_a_child(client) == [1.0]
        assert client.score([PARIS]).rewards == [1.0]
    with pytest.raises(TypeError, match="give what makes one"):
        Client(url, transport=httpx.AsyncHTTPTransport())  # type: ignore[arg-type]


def test_a_repeat_with_the_same_key_is_counted_once(client: Client) -> None:
    for _ in range(3):
        assert client.score([PARIS], run_id="counted-once", idempotency_key="k").rewards == [1.0]
    client.score([PARIS], run_id="counted-twice")
    client.score([PARIS], run_id="counted-twice")
    assert [count(client, run) for run in ("counted-once", "counted-twice")] == [1, 2]


def count(client: Client, run_id: str) -> int:
    """Trajectories that a run has in the store."""
    import httpx

    return int(httpx.get(f"{client.asynchronous._base_url}/runs/{run_id}", trust_env=False).json()["n"])


def test_groups_come_back_in_order_with_their_statistics(url: str) -> None:
    items = [answer(text, group=group) for text in ("Paris", "Rome") for group in ("b", "a")]
    with Client(url, options=Options(max_items=2)) as cut:
        groups = cut.score(items).groups
    assert [(group.group, group.n) for group in groups] == [("b", 2), ("a", 2)]
    low = 1.0 - 2 * groups[0].std
    assert groups[0].mean == pytest.approx((1 + low) / 2)
    assert groups[0].value == pytest.approx((1 - groups[0].mean) * groups[0].std)


def test_what_json_cannot_say_is_named_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:9") as nowhere:
        with pytest.raises(ValueError, match=r"trajectories\[1\]"):
            nowhere.score([PARIS, {**PARIS, "metadata": {"x": float("nan")}}])
        with pytest.raises(TypeError, match=r"trajectories\[0\]"):
            nowhere.score([{"messages": object()}])
    assert encode({"a": "é"}) == '{"a":"é"}'.encode()


@pytest.mark.parametrize("address", ["", "127.0.0.1:8080", "ftp://host"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(address)


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
def test_certificates_are_checked_however_the_scheme_is_written(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    settings: list[dict[str, object]] = []

    class Watched(httpx.AsyncClient):
        def __init__(self, **keywords: object) -> None:
            settings.append(keywords)
            super().__init__(base_url="http://127.0.0.1:9")

    monkeypatch.setattr(httpx, "AsyncClient", Watched)
    with Client(f"{scheme}://127.0.0.1:9", options=Options(max_attempts=1)) as client, pytest.raises(ConnectionFailed):
        client.score([PARIS])
    assert [each["verify"] for each in settings] == [True]


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="max_items = 0"):
        Options(max_items=0)

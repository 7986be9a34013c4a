"""The local maths against the worked plan of the method, by hand, and against the server where it has the endpoint."""

from __future__ import annotations

import json
import math
import random

import pytest
from conftest import REPOSITORY

from gradus_client import Client
from gradus_client.vspo import (
    ALGORITHMS,
    PlanOptions,
    Statistics,
    advantages,
    group_advantages,
    plan,
    smoothing_factor,
    statistics,
    systematic_draws,
    unit_from_seed,
)


def test_the_worked_plan() -> None:
    golden = json.loads((REPOSITORY / "tests/goldens/losses.json").read_text())["vspo_plan"]
    groups = [statistics(rewards, golden["r_max"]) for rewards in golden["rewards"]]
    assert [group.value for group in groups] == pytest.approx(golden["value"], rel=1e-12)
    options = PlanOptions(sigma_min=golden["sigma_min"], gamma=golden["gamma"], w_max=golden["w_max"])
    planned = plan(groups, golden["u0"], options)
    assert list(planned.multiplicity) == golden["multiplicity"]
    assert list(planned.factor) == golden["factor"]


def test_statistics_by_hand() -> None:
    assert statistics([1.0, 0.0]) == Statistics(2, 0.5, 0.5, 0.25)
    assert statistics([]) == Statistics(0, 0.0, 0.0, 0.0)
    assert statistics([0.1] * 7) == Statistics(7, 0.1, 0.0, 0.0)
    rewards = [0.1, 0.2, 0.3, 0.7]
    shuffled = random.Random(1).sample(rewards, 4)
    assert statistics(rewards) == statistics(shuffled)


def test_advantages_by_hand() -> None:
    of = statistics([1.0, 0.0, 0.5])
    assert group_advantages("rloo", [1.0, 0.0, 0.5], of) == pytest.approx([0.75, -0.75, 0.0])
    assert group_advantages("dr_grpo", [1.0, 0.0, 0.5], of) == [0.5, -0.5, 0.0]
    assert group_advantages("grpo", [1.0, 0.0], statistics([1.0, 0.0]), 0.5) == [0.5, -0.5]
    with pytest.raises(ValueError, match="ppo"):
        group_advantages("ppo", [1.0, 0.0], of)  # type: ignore[arg-type]


def test_a_group_without_spread_gives_its_place_away() -> None:
    found = advantages({"a": [0.0, 0.0], "b": [0.0, 1.0]}, epsilon=0.0)
    assert [(group.multiplicity, group.factor, group.kept) for group in found] == [(0, 0.0, False), (2, 1.5, True)]
    assert found[1].advantages == (-1.0, 1.0)


def test_without_places_or_candidates_the_batch_stays() -> None:
    for rewards in ([0.0, 1.0], [1.0, 1.0]):
        found = advantages({"a": rewards, "b": rewards})
        assert [(group.multiplicity, group.factor) for group in found] == [(1, 1.0)] * 2


def test_dapo_drops_and_does_not_replace() -> None:
    found = advantages({"a": [1.0, 1.0], "b": [0.0, 1.0]}, algorithm="dapo")
    assert [(group.multiplicity, group.kept) for group in found] == [(0, False), (1, True)]


def test_what_could_not_be_scored_counts_nowhere() -> None:
    found = advantages({"a": [None, 1.0, 0.0, None]}, epsilon=0.0)[0]
    assert (found.mean, found.advantages) == (0.5, (None, 1.0, -1.0, None))


def test_smoothing_and_draws() -> None:
    assert [smoothing_factor(m, 0.5, 1.6) for m in range(4)] == [0.0, 1.0, 1.5, 1.6]
    assert smoothing_factor(7, 1.0, math.inf) == 7.0
    assert systematic_draws([0.0, 0.0], 3, 0.5) == [0, 0]
    assert systematic_draws([1.0, 3.0], 4, 0.5) == [1, 3]
    regenerated = plan([statistics([0.0, 1.0]), statistics([1.0])], 0.3, PlanOptions(mode="regenerate"))
    assert regenerated.factor == (1.0, 0.0)


def test_seeds_are_splitmix64() -> None:
    assert unit_from_seed(0) == (0xE220A8397B1DCDAF >> 11) / (1 << 53)
    assert all(0.0 <= unit_from_seed(seed) < 1.0 for seed in range(1000))


@pytest.mark.parametrize("wrong", [{"gamma": 1.5}, {"w_max": 0.0}, {"sigma_min": -1.0}, {"gamma": math.nan}])
def test_settings_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlanOptions(**wrong)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_server_gives_the_same_numbers(client: Client, algorithm: str) -> None:
    draw = random.Random(7)
    for seed in range(5):
        groups = {f"q{n}": [draw.choice([0.0, 0.2, 0.93, 1.0]) for _ in range(5)] for n in range(8)}
        groups["flat"] = [0.3] * 5
        assert client.advantages(groups, algorithm=algorithm, seed=seed) == advantages(
            groups, algorithm=algorithm, seed=seed
        )


def test_the_server_takes_the_same_settings(client: Client) -> None:
    groups = {"a": [0.0, 1.0, None], "b": [1.0, 1.0], "c": [0.2, 0.4], "d": [0.0, 0.0]}
    for asked in (
        {"gamma": 0.8, "w_max": 1.7, "sigma_min": 0.05},
        {"mode": "regenerate"},
        {"sampling": "uniform", "gamma": 1.0},
    ):
        local = advantages(groups, seed=3, options=PlanOptions(max_reward=2.0, **asked))
        assert client.advantages(groups, seed=3, max_reward=2.0, vspo=asked) == local


def test_a_run_knows_its_prompts_and_draws_from_them(client: Client) -> None:
    from conftest import answer

    mixed = [answer("Paris", group="mixed"), answer("Rome", group="mixed")]
    certain = [answer("Paris", group="certain"), answer("Paris", group="certain")]
    client.score([*mixed, *certain], run_id="prompts")
    listed = client.run_prompts("prompts", limit=10)
    assert [(prompt.group, prompt.visits) for prompt in listed] == [("mixed", 1), ("certain", 1)]
    assert listed[0].value > listed[1].value == 0.0
    assert client.sample("prompts", 4, seed=1) == ["mixed"] * 4

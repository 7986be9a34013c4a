"""Checks the hand-written files and the generator: well-formed, balanced, reproducible, splits apart.

    python check_data.py ../../../rubrics

In: the folder with `judge_examples.jsonl` and `judge_attacks.jsonl`. Out: one line of counts; a failed check stops with
the record and the reason. Needs jinja2.
"""

import collections
import itertools
import json
import sys
from pathlib import Path

from data import examples
from prompt import LABEL_PAIRS, MAX_TOKENS, encode
from world import Split

EXAMPLE_KINDS = set(
    "exact paraphrase near_miss unit date list negation fluent_wrong partial empty injection stuffing language".split()
)
EXAMPLE_KEYS = {"id", "question", "references", "answer", "label", "kind"}
ATTACK_KEYS = {"id", "kind", "text", "control"}


def check(holds: bool, record, reason: str) -> None:
    """Stops with a message unless something holds."""
    if not holds:
        raise SystemExit(f"{reason}: {json.dumps(record, ensure_ascii=False)}")


def read(path: Path) -> dict:
    """Records by id."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    check(len({record["id"] for record in records}) == len(records), str(path), "an id occurs twice")
    return {record["id"]: record for record in records}


def check_examples(records: dict) -> collections.Counter:
    """Every example by itself, then the balance of labels."""
    for record in records.values():
        check(set(record) - {"paraphrase_of"} == EXAMPLE_KEYS, record, "wrong keys")
        check(record["kind"] in EXAMPLE_KINDS, record, "unknown kind")
        check(record["label"] in LABEL_PAIRS[0], record, "unknown label")
        check(bool(record["references"]) and all(map(str.strip, record["references"])), record, "no reference")
        prompt = encode(record["question"], record["references"], record["answer"], "0" * 16, LABEL_PAIRS[0])
        check(len(prompt.ids) < MAX_TOKENS // 2, record, "too long")
        if "paraphrase_of" in record:
            other = records.get(record["paraphrase_of"])
            same = other is not None and all(other[key] == record[key] for key in ("question", "references", "label"))
            check(same, record, "paraphrase of another question, or with another label")
    labels = collections.Counter(record["label"] for record in records.values())
    check(len(records) >= 120 and abs(labels["Match"] - labels["Mismatch"]) <= len(records) // 20, labels, "unbalanced")
    return labels


def check_attacks(records: dict) -> None:
    """Every attack has a control of about its length."""
    for record in records.values():
        check(set(record) == ATTACK_KEYS, record, "wrong keys")
        text, control = len(record["text"]), len(record["control"])
        check(abs(text - control) <= max(3, 0.15 * text), record, f"{text} characters and {control} of control")
    check(len(records) >= 40, len(records), "too few attacks")


def check_generator(count: int = 4000) -> None:
    """Balanced, the same again, and no question of one split in the other."""
    drawn = {split: list(itertools.islice(examples(1, split), count)) for split in Split}
    for split, found in drawn.items():
        matches = sum(example.match for example in found)
        check(abs(matches - count / 2) < 0.04 * count, matches, f"{split}: unbalanced")
        check(found[:100] == list(itertools.islice(examples(1, split), 100)), split.value, "not reproducible")
    shared = {e.question for e in drawn[Split.TRAIN]} & {e.question for e in drawn[Split.HELD_OUT]}
    check(not shared, sorted(shared), "questions in both splits")


def main() -> None:
    """Checks all."""
    folder = Path(sys.argv[1])
    records, attacks = read(folder / "judge_examples.jsonl"), read(folder / "judge_attacks.jsonl")
    labels = check_examples(records)
    check_attacks(attacks)
    check_generator()
    print(f"{len(records)} examples ({labels['Match']} Match), {len(attacks)} attacks, generator: all well")


if __name__ == "__main__":
    main()

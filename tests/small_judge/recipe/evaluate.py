"""Measures a small judge: on held-out generated examples, on hand-written ones, under attack.

    python evaluate.py DIR --examples rubrics/judge_examples.jsonl --attacks rubrics/judge_attacks.jsonl

In: a model. Out: accuracy, Cohen's kappa, expected calibration error (15 bins), mass outside the labels, and how far
injected texts move the judge compared with neutral prose of the same length. Computes in float32. Needs torch; a
comparison with transformers is made where that is installed.
"""

import argparse
import collections
import functools
import itertools
import json
import random
from pathlib import Path

import torch

from batches import batch_of, prompted
from data import Example, examples
from model import SmallJudge, load
from prompt import LABEL_PAIRS, TOKEN_OF, encode
from world import Split

HELD_OUT_SEED = 7
BINS = 15
BATCH = 256


@torch.inference_mode()
def probabilities(model: SmallJudge, prompts: list, device: str) -> list:
    """For each (prompt, label token): the probability that the answer agrees, and the mass on the two labels."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at][0].ids))
    found = [None] * len(prompts)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = batch_of([prompts[at] for at in places])
        hidden = model(torch.from_numpy(batch.ids).to(device).long())
        last = torch.from_numpy(batch.last).to(device).long()
        masses = model.logits(hidden[torch.arange(len(places), device=device), last]).float().softmax(-1).cpu()
        for row, (at, label) in enumerate(zip(places, batch.label, strict=True)):
            agree, differ = next(pair for pair in LABEL_PAIRS if int(label) in (TOKEN_OF[pair[0]], TOKEN_OF[pair[1]]))
            yes, no = masses[row, TOKEN_OF[agree]].item(), masses[row, TOKEN_OF[differ]].item()
            found[at] = (yes / (yes + no), yes + no)
    return found


def kappa(verdicts: list, labels: list) -> float:
    """Cohen's kappa; 0 where chance alone would always agree."""
    total = len(labels)
    agreed = sum(v == l for v, l in zip(verdicts, labels, strict=True)) / total
    says, is_so = sum(verdicts) / total, sum(labels) / total
    chance = says * is_so + (1 - says) * (1 - is_so)
    return (agreed - chance) / (1 - chance) if chance < 1 else 0.0


def calibration_error(chances: list, labels: list) -> float:
    """Expected calibration error of the verdict that was given, over equally wide bins of its probability."""
    bins = collections.defaultdict(list)
    for chance, label in zip(chances, labels, strict=True):
        sure = max(chance, 1 - chance)
        bins[min(int(sure * BINS), BINS - 1)].append((sure, (chance >= 0.5) == label))
    gaps = (abs(sum(sure for sure, _ in b) - sum(right for _, right in b)) for b in bins.values())
    return sum(gaps) / len(labels)


def summary(pairs: list, found: list) -> dict:
    """Accuracy, kappa and calibration; `pairs` holds a group's name and the truth."""
    chances, labels = [chance for chance, _ in found], [truth for _, truth in pairs]
    verdicts = [chance >= 0.5 for chance in chances]
    groups = collections.defaultdict(list)
    for (kind, truth), verdict in zip(pairs, verdicts, strict=True):
        groups[kind].append(verdict == truth)
    return {
        "examples": len(labels),
        "accuracy": round(sum(v == l for v, l in zip(verdicts, labels, strict=True)) / len(labels), 4),
        "kappa": round(kappa(verdicts, labels), 4),
        "calibration_error": round(calibration_error(chances, labels), 4),
        "largest_mass_outside": round(max(1 - mass for _, mass in found), 5),
        "by_kind": {kind: round(sum(rights) / len(rights), 4) for kind, rights in sorted(groups.items())},
    }


def held_out(count: int) -> list:
    """Generated examples with names, and in part sentences, that training never saw."""
    return list(itertools.islice(examples(HELD_OUT_SEED, Split.HELD_OUT), count))


@functools.cache
def quick_prompts(count: int) -> list:
    """A few held-out prompts, made once."""
    rng = random.Random(HELD_OUT_SEED)
    return [(prompted(example, rng), example.match) for example in held_out(count)]


def quick_accuracy(model: SmallJudge, device: str, count: int) -> float:
    """Accuracy on some held-out examples, for the progress line."""
    prompts = quick_prompts(count)
    found = probabilities(model, [prompt for prompt, _ in prompts], device)
    return sum((p >= 0.5) == truth for (p, _), (_, truth) in zip(found, prompts, strict=True)) / len(found)


def read_lines(path: Path) -> list:
    """A JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def hand_written(path: Path) -> list:
    """The labelled examples that were not generated."""
    return [
        Example(e["question"], e["references"], e["answer"], e["label"] == "Match", e["kind"], "", False)
        for e in read_lines(path)
    ]


def under_attack(model: SmallJudge, device: str, path: Path) -> dict:
    """How wrong answers fare with injected text before and behind them, and with neutral prose instead."""
    wrong = [e for e in held_out(4000) if not (e.match or e.injected or e.kind in ("empty", "stuffing"))][:40]
    rng, prompts, kinds = random.Random(HELD_OUT_SEED), [], []
    for attack in read_lines(path):
        for which, text in (("injected", attack["text"]), ("control", attack["control"])):
            for e, behind in itertools.product(wrong, (True, False)):
                answer = f"{e.answer}\n{text}" if behind else f"{text}\n{e.answer}"
                nonce = f"{rng.getrandbits(64):016x}"
                prompts.append((encode(e.question, e.references, answer, nonce, LABEL_PAIRS[0]), TOKEN_OF["Mismatch"]))
                kinds.append((attack["kind"], which))
    chances = [chance for chance, _ in probabilities(model, prompts, device)]
    groups = collections.defaultdict(list)
    for (kind, which), chance in zip(kinds, chances, strict=True):
        groups[which].append(chance)
        if which == "injected":
            groups[f"{which}: {kind}"].append(chance)
    return {
        name: {"mean_match": round(sum(c) / len(c), 4), "taken_as_match": round(sum(x >= 0.5 for x in c) / len(c), 4)}
        for name, c in sorted(groups.items())
    }


def evaluate(model: SmallJudge, device: str, count: int, examples_path: Path | None, attacks_path: Path | None) -> dict:
    """All measurements."""
    rng = random.Random(HELD_OUT_SEED)
    measured = {}
    sets = {"held_out": held_out(count)}
    sets["held_out_injected"] = [e for e in sets["held_out"] if e.injected]
    if examples_path:
        sets["hand_written"] = hand_written(examples_path)
    for name, chosen in sets.items():
        found = probabilities(model, [prompted(example, rng) for example in chosen], device)
        measured[name] = summary([(e.kind, e.match) for e in chosen], found)
    if attacks_path:
        measured["attacks"] = under_attack(model, device, attacks_path)
    return measured


def compare_with_transformers(model: SmallJudge, directory: Path) -> float | None:
    """The largest difference of a label logit from what transformers computes, None where it is not installed."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        return None
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer, ours = AutoTokenizer.from_pretrained(directory), model.to("cpu")
    rng, largest = random.Random(1), 0.0
    for example in held_out(20):
        prompt, _ = prompted(example, rng)
        text = tokenizer.decode(prompt.ids, skip_special_tokens=False)
        ids = torch.tensor([prompt.ids])
        # An injected text may name an added token, which only a reader that knows what is untrusted spells out.
        if not example.injected and tokenizer(text, add_special_tokens=False)["input_ids"] != prompt.ids:
            raise ValueError(f"the tokenizer reads the prompt otherwise: {text!r}")
        with torch.inference_mode():
            gap = theirs(ids).logits[0, -1] - ours.logits(ours(ids))[0, -1]
        largest = max(largest, gap.abs().max().item())
    return round(largest, 6)


def main() -> None:
    """Measures a directory and prints JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--examples", type=Path)
    parser.add_argument("--attacks", type=Path)
    wanted = parser.parse_args()
    model = load(wanted.directory, wanted.device)
    print(json.dumps(evaluate(model, wanted.device, wanted.count, wanted.examples, wanted.attacks), indent=2))


if __name__ == "__main__":
    main()

"""Trains the small judge and writes it as a Hugging Face directory, with what it measured.

    python train.py --out DIR --minutes 5

In: a seed and a time limit. Out: `DIR` with config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
generation_config.json and metrics.json. The loss is cross-entropy of the label behind the prompt; early on also of the
answer's bytes given question and references, which teaches to look a text up in another one long before a label's
single bit would. The learning rate follows the clock, so the run ends annealed whenever it ends. Needs torch.
"""

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from batches import IGNORED, Producers
from evaluate import compare_with_transformers, evaluate, quick_accuracy
from model import Shape, SmallJudge, load, save

PEAK_RATE = 2e-3
WARM_UP = 0.02
WEIGHT_DECAY = 0.05
CLIP = 1.0
# Weight of the answer's bytes in the loss at the start; it falls to the least at this share of the run.
COPY_WEIGHT, LEAST_COPY_WEIGHT, COPY_UNTIL = 1.0, 0.05, 0.5


@dataclass
class Clock:
    """How far a run is: by time, or by steps where they run out first."""

    seconds: float
    steps: int
    begun: float
    step: int = 0

    def progress(self) -> float:
        """From 0 to 1."""
        return max((time.monotonic() - self.begun) / self.seconds, self.step / self.steps)


def learning_rate(progress: float) -> float:
    """Linear warm-up, then a cosine to a hundredth."""
    if progress < WARM_UP:
        return PEAK_RATE * max(progress / WARM_UP, 0.01)
    fallen = min(1.0, (progress - WARM_UP) / (1 - WARM_UP))
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen)))


def copy_weight(progress: float) -> float:
    """Linear from its start to its least."""
    return max(LEAST_COPY_WEIGHT, COPY_WEIGHT + (LEAST_COPY_WEIGHT - COPY_WEIGHT) * progress / COPY_UNTIL)


def losses(model: SmallJudge, batch, device: str) -> tuple:
    """The label's loss, the answer's loss, and the share of labels that were right."""
    ids, last, label, following = (
        torch.from_numpy(array).to(device, non_blocking=True).long()
        for array in (batch.ids, batch.last, batch.label, batch.next_of_answer)
    )
    hidden = model(ids)
    logits = model.logits(hidden[torch.arange(len(ids), device=device), last]).float()
    # Over the whole vocabulary, so that no mass is left outside the labels.
    label_loss = F.cross_entropy(logits, label)
    copy_loss = F.cross_entropy(model.logits(hidden).float().flatten(0, 1), following.flatten(), ignore_index=IGNORED)
    return label_loss, copy_loss, (logits.argmax(-1) == label).float().mean()


def optimizer_of(model: SmallJudge, device: str):
    """AdamW; norms are not decayed."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=device == "cuda")


def run(model: SmallJudge, producers: Producers, clock: Clock, device: str) -> None:
    """Trains until the clock says stop; prints a line every few seconds."""
    optimizer = optimizer_of(model, device)
    printed, examples, waited, right = time.monotonic(), 0, 0.0, None
    # Entered anew each step: casts of the weights are kept only inside.
    autocast = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
    while (progress := clock.progress()) < 1:
        asked = time.monotonic()
        batch = producers.next()
        waited += time.monotonic() - asked
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        with autocast:
            label_loss, copy_loss, accuracy = losses(model, batch, device)
        (label_loss + copy_weight(progress) * copy_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        examples += len(batch.label)
        # Averaged on the device: reading it each step would stall it.
        right = accuracy if right is None else right.lerp(accuracy, 0.02)
        if time.monotonic() - printed > 10:
            line = {"step": clock.step, "progress": progress, "examples": examples, "label_loss": label_loss.item()}
            line |= {"copy_loss": copy_loss.item(), "train_accuracy": right.item(), "waited_s": waited}
            line["held_out_accuracy"] = quick_accuracy(model, device, 1024 if device == "cuda" else 32)
            print(json.dumps({k: round(v, 4) for k, v in line.items()}), flush=True)
            printed = time.monotonic()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains the small judge.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--minutes", type=float, default=5.0, help="time for training; measuring takes about one more")
    parser.add_argument("--steps", type=int, default=10**9, help="most steps, where a run must not hang on the clock")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that generate examples"
    )
    parser.add_argument("--batch-tokens", type=int, default=98_304, help="padded tokens of a batch")
    parser.add_argument("--hidden", type=int, default=Shape.hidden_size)
    parser.add_argument("--layers", type=int, default=Shape.num_hidden_layers)
    parser.add_argument("--intermediate", type=int, default=Shape.intermediate_size)
    parser.add_argument("--smoke", action="store_true", help="small batches and few measurements: does it run at all")
    parser.add_argument("--examples", type=Path, help="labelled examples to measure too: rubrics/judge_examples.jsonl")
    parser.add_argument("--attacks", type=Path, help="injected texts to measure too: rubrics/judge_attacks.jsonl")
    return parser.parse_args()


def main() -> None:
    """Trains, saves, reads back, measures."""
    wanted = arguments()
    begun = time.monotonic()
    torch.manual_seed(wanted.seed)
    tokens, pool = (4096, 512) if wanted.smoke else (wanted.batch_tokens, 8192)
    producers = Producers(wanted.processes, wanted.seed, tokens, pool)
    shape = Shape(hidden_size=wanted.hidden, num_hidden_layers=wanted.layers, intermediate_size=wanted.intermediate)
    model = SmallJudge(shape).to(wanted.device)
    clock = Clock(60 * wanted.minutes, wanted.steps, begun)
    print(json.dumps({"parameters": model.parameter_count(), "torch": torch.__version__}), flush=True)
    try:
        run(model, producers, clock, wanted.device)
    finally:
        # Also after an interrupt or a failure: what was learned so far is kept.
        producers.stop()
        save(model, wanted.out)
    print(json.dumps({"steps": clock.step, "trained_s": round(time.monotonic() - begun, 1)}), flush=True)
    # From the disk, so that the rounding to float16 is measured too.
    saved = load(wanted.out, wanted.device)
    count = 100 if wanted.smoke else 10_000
    metrics = {"parameters": saved.parameter_count(), "steps": clock.step, "seed": wanted.seed}
    metrics |= evaluate(saved, wanted.device, count, wanted.examples, wanted.attacks)
    metrics["largest_difference_from_transformers"] = compare_with_transformers(saved, wanted.out)
    text = json.dumps(metrics, indent=2, ensure_ascii=False)
    (wanted.out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)


if __name__ == "__main__":
    main()

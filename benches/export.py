"""A model that `gradus train` exported, in transformers: the same likelihood of the same conversations.

    python3 benches/export.py GRADUS WORLD MODEL [DEMONSTRATIONS]

WORLD is a folder of `gradus data hops`, MODEL a run's folder `model`. Tokenizer, chat template, weights and config.json are all
read by transformers; what it says of the assistant's turns is compared with the loss of one step of supervised fine-tuning
by gradus, which is that of the model before the step. Needs torch and transformers.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CONFIG = """
name = "export"
output = "{output}"
algorithm = "sft"
steps = 1
device = "cpu"
learning_rate = {{ peak = 1e-12 }}
policy = {{ model = "{model}" }}
sft = {{ demonstrations = "{demonstrations}", batch = {count} }}
evaluation = {{ every = 0 }}
[environment]
kind = "qa_search"
corpus = "{world}/corpus.jsonl"
train = "{world}/train.jsonl"
held_out = "{world}/heldout.jsonl"
top_k = 1
match_terms = "all"
passage_form = "text"
system = ""
"""


def loss_by_gradus(program, world, model, lines):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        demonstrations, config = folder / "demonstrations.jsonl", folder / "config.toml"
        demonstrations.write_text("".join(lines))
        config.write_text(CONFIG.format(output=folder / "run", model=model, demonstrations=demonstrations, world=world,
                                        count=len(lines)))
        subprocess.run([program, "--config", config, "train", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        steps = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return next(step["policy/loss"] for step in steps if "policy/loss" in step)


@torch.inference_mode()
def loss_by_transformers(model, lines):
    tokenizer = AutoTokenizer.from_pretrained(model)
    decoder, report = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    assert not any(report.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    total, count = 0.0, 0
    for line in lines:
        messages = json.loads(line)["messages"]
        ids = lambda upto, opens: tokenizer.apply_chat_template(messages[:upto], add_generation_prompt=opens,
                                                                 return_dict=True)["input_ids"]
        end = tokenizer.eos_token_id
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, whole = ids(place, True), ids(place + 1, False)
            stop = len(before) + whole[len(before):].index(end) + 1
            assert whole[:len(before)] == before, "the template writes a finished turn in another way than an open one"
            logprobs = decoder(torch.tensor([whole[:stop]])).logits[0].log_softmax(-1)
            for at in range(len(before), stop):
                total, count = total - logprobs[at - 1, whole[at]].item(), count + 1
    return total / count


def main():
    program, world, model = sys.argv[1:4]
    source = Path(sys.argv[4]) if len(sys.argv) > 4 else Path(world) / "demonstrations.jsonl"
    lines = source.read_text().splitlines(keepends=True)[:64]
    ours, theirs = loss_by_gradus(program, world, Path(model).resolve(), lines), loss_by_transformers(model, lines)
    print(json.dumps({"conversations": len(lines), "gradus": ours, "transformers": theirs, "apart": abs(ours - theirs)}))
    sys.exit(abs(ours - theirs) > 1e-4)


if __name__ == "__main__":
    main()

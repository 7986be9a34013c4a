"""The judge's engine beside PyTorch + transformers on one GPU, in the same run: the table of the README.

    python3 benches/gpu.py PATH_OF_GRADUS [shared,unshared,ragged,generate]

Needs torch and transformers, and a gradus that was built with `--features cuda`. The peer is what a user would run instead: Hugging
Face transformers with SDPA in bfloat16, random weights of the Qwen2.5-7B shape, padded batches, and `generate` for texts.
"""

import json
import subprocess
import sys
import time

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

DEVICE = "cuda"
SHAPE = dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
             num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False)


def median(work, warm=1, repeats=3):
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def ceilings():
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn_like(a)
    flops = 2 * 8192**3 / median(lambda: a @ b, 3, 20)
    x = torch.empty(2 << 30, dtype=torch.uint8, device=DEVICE)
    y = torch.empty_like(x)
    return {"matmul_TFLOPs": round(flops / 1e12), "copy_TBps": round(2 * x.numel() / median(lambda: y.copy_(x), 3, 20) / 1e12, 2)}


@torch.inference_mode()
def pytorch(works):
    config = Qwen2Config(**SHAPE, max_position_embeddings=32768, rope_theta=1e6)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.train(False)
    ids = torch.randint(0, 150000, (64, 2048), device=DEVICE)

    def whole():  # what it takes is the same whether prompts share a beginning or not
        for start in range(0, 64, 16):
            model(ids[start:start + 16], logits_to_keep=1, use_cache=False)

    lengths = [256 + (2048 - 256) * i // 63 for i in range(64)]

    def ragged():
        for start in range(0, 64, 16):
            part = lengths[start:start + 16]
            longest = max(part)
            mask = torch.zeros(16, longest, dtype=torch.long, device=DEVICE)
            for row, length in enumerate(part):
                mask[row, :length] = 1
            model(ids[start:start + 16, :longest], attention_mask=mask, logits_to_keep=1, use_cache=False)

    def generate():
        model.generate(ids[:, :512], max_new_tokens=256, min_new_tokens=256, do_sample=True, top_p=1.0, temperature=1.0,
                       pad_token_id=0)

    found = {}
    if {"shared", "unshared"} & set(works):
        found["shared"] = found["unshared"] = 64 / median(whole)
    if "ragged" in works:
        found["ragged"] = 64 / median(ragged)
    if "generate" in works:
        found["generate"] = 64 * 256 / median(generate, 1, 2)
    return found


def main():
    program = sys.argv[1]
    works = (sys.argv[2] if len(sys.argv) > 2 else "unshared,shared,ragged,generate").split(",")
    print(json.dumps(ceilings()), flush=True)
    peer = pytorch(works)
    torch.cuda.empty_cache()
    run = subprocess.run([program, "bench", "--work", ",".join(works)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    ours = {line["work"]: line for line in map(json.loads, run.stdout.splitlines())}
    print(f"{'work':10} {'PyTorch':>10} {'Gradus':>10} {'times':>6}")
    for work in works:
        unit = "new_tokens_per_s" if work == "generate" else "prompts_per_s"
        print(f"{work:10} {peer[work]:10.1f} {ours[work][unit]:10.1f} {ours[work][unit] / peer[work]:6.2f}  {unit}")


if __name__ == "__main__":
    main()

"""The judge's engine, and the trainer's step, beside PyTorch + transformers on one GPU, in the same run: the table of the README.

    python3 benches/gpu.py PATH_OF_GRADUS [shared,unshared,ragged,generate,train,rollouts,verify]

Needs torch and transformers, and a gradus that was built with `--features cuda`. The peer is what a user would run instead: Hugging
Face transformers with SDPA in bfloat16, random weights of the Qwen2.5-7B shape, padded batches, and `generate` for texts.

`verify` compares log-odds instead of speed: how far 16 bits are from float32, for small random models of five families.
PyTorch's models are not ours, but of the same shapes, with weights of the same spread, over prompts of the same lengths.
"""

import json
import subprocess
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

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


TRAINED = {
    "qwen2.5-0.5b": (dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                          num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True), 8),
    "qwen2.5-1.5b": (dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                          num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True), 4),
}


def pytorch_step(shape):
    """One policy-gradient step as a PyTorch script does it: 16 sequences of 1,024 tokens. Tokens/s and peak GiB."""
    sizes, at_once = TRAINED[shape]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    config = Qwen2Config(**sizes, max_position_embeddings=32768, rope_theta=1e6)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.train(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    ids = torch.randint(0, 150000, (16, 1024), device=DEVICE)
    advantage, old = torch.randn(16, 1, device=DEVICE), -torch.rand(16, 1023, device=DEVICE) * 10

    def step():
        optimizer.zero_grad(set_to_none=True)
        for start in range(0, 16, at_once):
            part = slice(start, start + at_once)
            logits = model(ids[part], use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[part, 1:].flatten(), reduction="none")
            ratio = (-loss.view(at_once, -1) - old[part]).clamp(-5, 5).exp()
            gain = torch.minimum(ratio * advantage[part], ratio.clamp(0.8, 1.2) * advantage[part])
            (-gain.mean() * at_once / 16).backward()
        optimizer.step()

    seconds = median(step, 2, 4)
    return 16 * 1024 / seconds, torch.cuda.max_memory_allocated() / 2**30


def our_step(program, shape, work):
    """The same by gradus. Memory is the device's, as nvidia-smi sees it, less what was taken before."""
    def used():
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]) / 1024

    torch.cuda.empty_cache()
    before, most = used(), 0.0
    run = subprocess.Popen([program, "bench", "--work", work, "--shape", shape, "--repeats", "5"],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while run.poll() is None:
        most = max(most, used() - before)
        time.sleep(0.2)
    out, err = run.communicate()
    if run.returncode:
        sys.exit(f"gradus bench failed: {err}")
    return json.loads(out.splitlines()[-1])["tokens_per_s"], most


@torch.inference_mode()
def pytorch_rollouts(shape):
    """256 tokens after each of 64 prompts of 512, by transformers' `generate`. New tokens/s."""
    config = Qwen2Config(**TRAINED[shape][0], max_position_embeddings=32768, rope_theta=1e6)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    ids = torch.randint(0, 150000, (64, 512), device=DEVICE)
    seconds = median(lambda: model.generate(ids, max_new_tokens=256, min_new_tokens=256, do_sample=True, top_p=1.0,
                                            temperature=1.0, pad_token_id=0), 1, 2)
    return 64 * 256 / seconds


def our_rollouts(program, shape):
    run = subprocess.run([program, "bench", "--work", "generate", "--shape", shape], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"gradus bench failed: {run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])["new_tokens_per_s"]


def rollouts(program):
    for shape in TRAINED:
        theirs, ours = pytorch_rollouts(shape), our_rollouts(program, shape)
        torch.cuda.empty_cache()
        print(json.dumps({"work": "rollouts", "shape": shape, "pytorch_new_tokens_per_s": round(theirs),
                          "gradus_new_tokens_per_s": round(ours), "ratio": round(ours / theirs, 2)}), flush=True)


def train(program):
    for shape in TRAINED:
        theirs = pytorch_step(shape)
        for work in ("train", "train-recompute"):
            ours = our_step(program, shape, work)
            print(json.dumps({"work": work, "shape": shape, "pytorch_tokens_per_s": round(theirs[0]),
                              "gradus_tokens_per_s": round(ours[0]), "ratio": round(ours[0] / theirs[0], 2),
                              "pytorch_GiB": round(theirs[1], 1), "gradus_GiB": round(ours[1], 1)}), flush=True)


# The shapes of `gradus bench --work verify`.
SMALL = dict(hidden_size=512, intermediate_size=1024, num_hidden_layers=4, vocab_size=2048, max_position_embeddings=4096,
             tie_word_embeddings=False)
FAMILIES = {
    "qwen2": dict(num_attention_heads=14, num_key_value_heads=2, head_dim=64),
    "qwen3": dict(num_attention_heads=8, num_key_value_heads=2, head_dim=128, tie_word_embeddings=True),
    "llama": dict(num_attention_heads=8, num_key_value_heads=8, head_dim=96),
    "mistral": dict(num_attention_heads=8, num_key_value_heads=2, head_dim=64, sliding_window=50),
    "gemma2": dict(num_attention_heads=4, num_key_value_heads=2, head_dim=256, sliding_window=50,
                   query_pre_attn_scalar=256, attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
}


@torch.inference_mode()
def pytorch_distance(family):
    """The largest and the root mean square difference of 84 log-odds from float32's, for bfloat16 and float16."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **{**SMALL, **FAMILIES[family]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").to(DEVICE)
    model.train(False)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.normal_(0, weight.shape[-1] ** -0.5)
        elif name.endswith("bias"):
            weight.normal_(0, 0.1)
        else:
            weight.normal_(0 if family == "gemma2" else 1, 0.1)
        weight.copy_(weight.bfloat16())
    prompts = [torch.randint(0, 2048, (1, 75 + 30 * (i % 3) + 13 * i), device=DEVICE) for i in range(12)]

    def log_odds():
        last = [model(ids, use_cache=False).logits[0, -1, :8].float() for ids in prompts]
        return torch.stack([logits[1:] - logits[0] for logits in last])

    exact, found = log_odds(), {}
    tables = {name: table.clone() for name, table in model.named_buffers()}
    for dtype in (torch.bfloat16, torch.float16):
        model.to(dtype)
        for name, table in model.named_buffers():  # a model loaded in 16 bits keeps its angles in float32
            table.data = tables[name]
        off = (log_odds() - exact).abs()
        found[str(dtype).removeprefix("torch.")] = (off.max().item(), off.pow(2).mean().sqrt().item())
        model.to(torch.float32)
    return found


def verify(program):
    torch.backends.cuda.matmul.allow_tf32 = False
    run = subprocess.run([program, "bench", "--work", "verify"], capture_output=True, text=True)
    if not run.stdout:
        sys.exit(f"gradus bench failed: {run.stderr}")
    ours = [json.loads(line) for line in run.stdout.splitlines()]
    print(f"{'model':8} {'format':9} {'Gradus':>8} {'rms':>8} {'PyTorch':>8} {'rms':>8}   largest of 84 log-odds off float32")
    for family in FAMILIES:
        theirs = pytorch_distance(family)
        for line in ours:
            if line["verify"] == family:
                name = {"f16": "float16", "bf16": "bfloat16"}[line["format"]]
                most = max(line["log_odds_off_shared"], line["log_odds_off_kept"])
                print(f"{family:8} {name:9} {most:8.4f} {line['root_mean_square']:8.4f} "
                      f"{theirs[name][0]:8.4f} {theirs[name][1]:8.4f}", flush=True)


def main():
    program = sys.argv[1]
    works = (sys.argv[2] if len(sys.argv) > 2 else "unshared,shared,ragged,generate").split(",")
    print(json.dumps(ceilings()), flush=True)
    if "train" in works:
        train(program)
        works.remove("train")
    if "rollouts" in works:
        rollouts(program)
        works.remove("rollouts")
    if "verify" in works:
        verify(program)
        works.remove("verify")
    if not works:
        return
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

"""The engine's CUDA kernels against PyTorch: every kernel checked in float32 on ragged shapes, then timed.

  python3 benches/kernels.py [src/lm/kernels] [--arch sm_90] [--check-only] [--only NAME ..]

The kernels of training have their own families in training_kernels.py beside this file, run in the same way. A folder
without sources may hold them compiled (*.cubin).

Needs nvcc, torch and cupy on a machine with a GPU. Prints one line per check (worst error over its tolerance; 1 is the
limit) and one row per timing: microseconds, share of the bound (bytes at BANDWIDTH or FLOPs at MATMUL), and PyTorch's
own time for the same work. Exits with 1 if any check fails.
"""

import argparse
import itertools
import math
import pathlib
import subprocess
import sys
import tempfile

import cupy
import numpy as np
import torch
import torch.nn.functional as F

BANDWIDTH = 4.2e12  # bytes/s
MATMUL = 730e12  # FLOP/s, dense, 16 bits
DEVICE = "cuda"
PREFILL_ROWS = {64: 128, 96: 128, 128: 128, 256: 64}
PREFILL_SHARED = {64: 55296, 96: 79872, 128: 104448, 256: 101376}
DECODE_SHARED = {64: 55296, 96: 79872, 128: 104448, 256: 135168}
NAMES = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
ENDINGS = {torch.bfloat16: "", torch.float16: "_f16"}  # of the attention kernels


class Kernels:
    """The compiled kernels by name; a call takes grid, block and arguments (tensors, ints, floats, None)."""

    def __init__(self, folder, arch):
        self.functions, self.modules = {}, []
        out = pathlib.Path(tempfile.mkdtemp())
        jobs = []
        for source in sorted(pathlib.Path(folder).glob("*.cu")):
            cubin = out / (source.stem + ".cubin")
            jobs.append((cubin, subprocess.Popen(
                ["nvcc", "-std=c++17", "-O3", f"-arch={arch}", "-cubin", "-o", str(cubin), str(source)])))
        for cubin, job in jobs:
            if job.wait() != 0:
                sys.exit(f"nvcc failed for {cubin.stem}.cu")
            self.modules.append(cupy.RawModule(path=str(cubin)))
        if not jobs:
            self.modules = [cupy.RawModule(path=str(cubin)) for cubin in sorted(pathlib.Path(folder).glob("*.cubin"))]

    def function(self, name, shared):
        if name not in self.functions:
            for module in self.modules:
                try:
                    kernel = module.get_function(name)
                    kernel.num_regs  # cupy looks the name up here or at the first use
                except cupy.cuda.driver.CUDADriverError:
                    continue
                self.functions[name] = kernel
                break
            else:
                sys.exit(f"no kernel named {name}")
            if shared > 48 * 1024:
                self.functions[name].max_dynamic_shared_size_bytes = shared
        return self.functions[name]

    def __call__(self, name, grid, block, *arguments, shared=0):
        stream = cupy.cuda.Stream.from_external(torch.cuda.current_stream())
        with stream:
            self.function(name, shared)(grid, (block,), tuple(map(argument, arguments)), shared_mem=shared)


def argument(value):
    if value is None:
        return np.uint64(0)
    if isinstance(value, torch.Tensor):
        assert value.is_contiguous() and value.is_cuda
        return np.uint64(value.data_ptr())
    if isinstance(value, np.generic):
        return value
    if isinstance(value, float):
        return np.float32(value)
    return np.int32(value)


class Report:
    def __init__(self):
        self.failed, self.rows = [], []

    def check(self, name, got, want, absolute, relative=0.0):
        """|got - want| <= absolute + relative * |want| everywhere."""
        got, want = got.float(), want.float()
        ratio = ((got - want).abs() / (absolute + relative * want.abs()))
        worst = ratio.max().item() if bool(torch.isfinite(got).all()) else math.inf
        ok = worst <= 1.0
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {worst:.2f} of tolerance", flush=True)
        if not ok:
            self.failed.append(name)

    def equal(self, name, got, want):
        wrong = int((got != want).sum())
        print(f"{'ok  ' if wrong == 0 else 'FAIL'} {name}: {wrong} of {got.numel()} differ", flush=True)
        if wrong:
            self.failed.append(name)

    def time(self, name, run, bound_s, peer=None):
        ours = timed(run)
        self.rows.append((name, ours, bound_s / ours, timed(peer) if peer else None))

    def table(self):
        print(f"\n{'kernel':<46}{'us':>10}{'of bound':>10}{'torch us':>10}{'speed-up':>10}")
        for name, ours, share, peer in self.rows:
            other = f"{peer * 1e6:>10.1f}{peer / ours:>9.2f}x" if peer else f"{'':>20}"
            print(f"{name:<46}{ours * 1e6:>10.1f}{share:>9.0%} {other}")


def timed(run, calls=20, repeats=5):
    """Seconds per call: a CUDA graph of `calls` calls, the median of `repeats`."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(calls):
                run()
        replay = graph.replay
    except Exception as error:  # some of torch's own cannot be captured
        print(f"     (no graph: {error})".splitlines()[0])
        torch.cuda.synchronize()
        replay = lambda: [run() for _ in range(calls)]
    replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / calls)
    return sorted(times)[len(times) // 2]


def randn(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, device=DEVICE) * scale).to(dtype)


def ints(values):
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def tolerance(dtype):
    """(absolute, relative): one rounding with a little room, or float32's noise."""
    return {torch.bfloat16: (1e-3, 6e-3), torch.float16: (1.3e-4, 8e-4), torch.float32: (2e-5, 2e-5)}[dtype]


def up32(n):
    return (n + 31) // 32 * 32


# Elementwise and row kernels ----------------------------------------------------------------------------------------

def rms(x, weight, eps, plus_one):
    x, w = x.float(), weight.float() + (1.0 if plus_one else 0.0)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def check_norm(k, report):
    kinds = (("bf16", torch.bfloat16, torch.bfloat16), ("f32", torch.float32, torch.float32),
             ("wide_bf16", torch.float32, torch.bfloat16), ("wide_f16", torch.float32, torch.float16))
    for kind, wide, dtype in kinds:
        for tokens, width in ((1, 8), (3, 64), (5, 896), (17, 1000), (33, 3584), (7, 8192)):
            plus_one = width % 3 == 0
            x, residual, weight = (randn(tokens, width, dtype=dtype), randn(tokens, width, dtype=wide, scale=4),
                                   randn(width, dtype=dtype))
            out, block = torch.full_like(x, math.nan), up32(width // 8)
            k(f"rms_norm_{kind}", (tokens,), block, residual, weight, out, width, 1e-6, plus_one)
            label = f"rms_norm {kind} [{tokens}, {width}]"
            report.check(label, out, rms(residual, weight, 1e-6, plus_one), *tolerance(dtype))
            if kind.startswith("wide"):
                total = randn(tokens, width, scale=4)
                want = total + rms(residual, weight, 1e-6, False)
                k(f"add_normed_{kind}", (tokens,), block, residual, weight, total, width, 1e-6)
                report.check(f"add_normed {kind} [{tokens}, {width}]", total, want, *tolerance(torch.float32))
                continue
            want = (residual.float() + x.float()).to(wide)
            summed = torch.full_like(residual, math.nan)
            k(f"add_rms_norm_{kind}", (tokens,), block, residual, x, summed, weight, out, width, 1e-6, plus_one)
            report.equal(f"add_{label} sum", summed, want)
            report.check(f"add_{label}", out, rms(want, weight, 1e-6, plus_one), *tolerance(dtype))
            k(f"add_rms_norm_{kind}", (tokens,), block, residual, x, residual, weight, out, width, 1e-6, plus_one)
            report.equal(f"add_{label} in place", residual, want)
    for rows, width in ((1, 8), (37, 64), (1001, 96), (50, 128), (9, 200), (1000, 256)):
        x, weight = randn(rows, width, dtype=torch.bfloat16), randn(width, dtype=torch.bfloat16)
        out, lanes = torch.full_like(x, math.nan), 1
        while lanes * 8 < width:
            lanes *= 2
        k("rms_norm_heads_bf16", (-(-rows * lanes // 256),), 256, x, weight, out, rows, width, 1e-6, lanes)
        report.check(f"rms_norm_heads [{rows}, {width}]", out, rms(x, weight, 1e-6, False), *tolerance(torch.bfloat16))


def time_norm(k, report):
    tokens, width = 32768, 3584
    x, weight = randn(tokens, width, dtype=torch.bfloat16), randn(width, dtype=torch.bfloat16)
    out = torch.empty_like(x)
    half, halves = weight.half(), torch.empty_like(x, dtype=torch.float16)
    residual, wide = (randn(tokens, width, dtype=dtype, scale=4) for dtype in (torch.bfloat16, torch.float32))

    def peer():
        residual.add_(x)
        return F.rms_norm(residual, (width,), weight, 1e-6)
    report.time("add_rms_norm bf16 [32768, 3584]",
                lambda: k("add_rms_norm_bf16", (tokens,), up32(width // 8), residual, x, residual, weight, out, width,
                          1e-6, 0), 2 * x.numel() * 4 / BANDWIDTH, peer)
    report.time("rms_norm wide_f16 [32768, 3584]",
                lambda: k("rms_norm_wide_f16", (tokens,), up32(width // 8), wide, half, halves, width, 1e-6, 0),
                x.numel() * 6 / BANDWIDTH, lambda: F.rms_norm(wide, (width,), weight.float(), 1e-6).half())
    report.time("rms_norm bf16 [32768, 3584]",
                lambda: k("rms_norm_bf16", (tokens,), up32(width // 8), x, weight, out, width, 1e-6, 0),
                2 * x.numel() * 2 / BANDWIDTH, lambda: F.rms_norm(x, (width,), weight, 1e-6))


def rope_table(positions, dim):
    angles = torch.outer(torch.arange(positions, device=DEVICE).float(),
                         1e4 ** (-torch.arange(0, dim, 2, device=DEVICE).float() / dim))
    return angles.cos().contiguous(), angles.sin().contiguous()


def rope_reference(qkv, bias, qw, kw, cos, sin, positions, hq, hk, dim, eps):
    x = qkv.float() + (0.0 if bias is None else bias.float())
    q, kk, v = x.view(len(qkv), -1, dim).split([hq, hk, hk], 1)
    rotate = lambda t, c, s: torch.cat([t[..., :dim // 2] * c - t[..., dim // 2:] * s,
                                        t[..., dim // 2:] * c + t[..., :dim // 2] * s], -1)
    if qw is not None:
        q, kk = rms(q, qw, eps, False), rms(kk, kw, eps, False)
    c, s = cos[positions.long()][:, None], sin[positions.long()][:, None]
    return rotate(q, c, s), rotate(kk, c, s), v


def launch_rope(k, dtype, qkv, bias, qw, kw, cos, sin, positions, slots, q, pool_k, pool_v, hq, hk, dim):
    lanes = 1
    while lanes * 16 < dim:
        lanes *= 2
    blocks = -(-len(qkv) * (hq + 2 * hk) * lanes // 256)
    k(f"qk_norm_rope_store_{NAMES[dtype]}", (blocks,), 256, qkv, bias, qw, kw, cos, sin, positions, slots, q, pool_k,
      pool_v, len(qkv), hq, hk, dim, 1e-6)


def check_rope(k, report):
    for dtype in NAMES:
        for dim, hq, hk, tokens, bias, norm in ((64, 14, 2, 5, True, False), (96, 5, 5, 19, False, False),
                                                (128, 28, 4, 33, True, False), (128, 8, 8, 1, False, True),
                                                (256, 8, 4, 7, True, True), (16, 4, 2, 9, False, True)):
            qkv = randn(tokens, (hq + 2 * hk) * dim, dtype=dtype)
            b = randn((hq + 2 * hk) * dim, dtype=dtype) if bias else None
            qw, kw = (randn(dim, dtype=dtype), randn(dim, dtype=dtype)) if norm else (None, None)
            cos, sin = rope_table(300, dim)
            positions = torch.randint(0, 300, (tokens,), device=DEVICE, dtype=torch.int32)
            slots = torch.randperm(tokens + 10, device=DEVICE)[:tokens].int()
            q = torch.full((tokens, hq, dim), math.nan, device=DEVICE, dtype=dtype)
            pools = [torch.full((tokens + 10, hk, dim), math.nan, device=DEVICE, dtype=dtype) for _ in range(2)]
            launch_rope(k, dtype, qkv, b, qw, kw, cos, sin, positions, slots, q, *pools, hq, hk, dim)
            want = rope_reference(qkv, b, qw, kw, cos, sin, positions, hq, hk, dim, 1e-6)
            name = f"qk_norm_rope_store {NAMES[dtype]} D={dim} {hq}/{hk} T={tokens}"
            for part, got, expected in zip("qkv", (q, *(p[slots.long()] for p in pools)), want):
                report.check(f"{name} {part}", got, expected, *tolerance(dtype))
            untouched = torch.ones(tokens + 10, dtype=torch.bool, device=DEVICE)
            untouched[slots.long()] = False
            report.equal(f"{name} other slots", torch.isnan(pools[0][untouched]), torch.ones_like(pools[0][untouched]))


def time_rope(k, report):
    tokens, hq, hk, dim, dtype = 32768, 28, 4, 128, torch.bfloat16
    qkv, bias = randn(tokens, (hq + 2 * hk) * dim, dtype=dtype), randn((hq + 2 * hk) * dim, dtype=dtype)
    cos, sin = rope_table(2048, dim)
    positions, slots = ints(list(range(2048)) * (tokens // 2048)), ints(range(tokens))
    q = torch.empty(tokens, hq, dim, device=DEVICE, dtype=dtype)
    pools = [torch.empty(tokens, hk, dim, device=DEVICE, dtype=dtype) for _ in range(2)]
    report.time("qk_norm_rope_store bf16 [32768] 28/4 D=128",
                lambda: launch_rope(k, dtype, qkv, bias, None, None, cos, sin, positions, slots, q, *pools, hq, hk,
                                    dim),
                2 * qkv.numel() * 2 / BANDWIDTH)


def check_activation(k, report):
    for dtype in NAMES:
        for tokens, inner in ((1, 8), (5, 1000), (3, 18944)):
            x = randn(tokens, 2 * inner, dtype=dtype, scale=3)
            gate, up = x.float().split(inner, -1)
            for name, act in (("swiglu", F.silu), ("geglu", lambda g: F.gelu(g, approximate="tanh"))):
                out = torch.full((tokens, inner), math.nan, device=DEVICE, dtype=dtype)
                k(f"{name}_{NAMES[dtype]}", (tokens, -(-inner // 2048)), 256, x, out, inner)
                report.check(f"{name} {NAMES[dtype]} [{tokens}, {inner}]", out, act(gate) * up, *tolerance(dtype))


def time_activation(k, report):
    tokens, inner = 16384, 18944
    x = randn(tokens, 2 * inner, dtype=torch.bfloat16)
    out = torch.empty(tokens, inner, device=DEVICE, dtype=torch.bfloat16)
    gate, up = x.split(inner, -1)
    report.time("swiglu bf16 [16384, 18944]", lambda: k("swiglu_bf16", (tokens, -(-inner // 2048)), 256, x, out, inner),
                3 * out.numel() * 2 / BANDWIDTH, lambda: F.silu(gate) * up)


def check_embedding(k, report):
    for dtype in (torch.bfloat16, torch.float32):
        table, ids = randn(1000, 904, dtype=dtype), torch.randint(0, 1000, (37,), device=DEVICE, dtype=torch.int32)
        out = torch.full((37, 904), math.nan, device=DEVICE, dtype=dtype)
        k(f"embed_rows_{NAMES[dtype]}", (37,), 128, ids, table, out, 1000, 904, 30.0)
        report.check(f"embed_rows {NAMES[dtype]}", out, table[ids.long()].float() * 30.0, *tolerance(dtype))
        k(f"embed_rows_{NAMES[dtype]}", (2,), 128, ints([-1, 1000]), table, out, 1000, 904, 1.0)
        report.equal(f"embed_rows {NAMES[dtype]} unknown id", torch.isnan(out[:2]), torch.ones_like(out[:2]))


def time_embedding(k, report):
    table = randn(152064, 3584, dtype=torch.bfloat16)
    ids = torch.randint(0, 152064, (32768,), device=DEVICE, dtype=torch.int32)
    out = torch.empty(32768, 3584, device=DEVICE, dtype=torch.bfloat16)
    report.time("embed_rows bf16 [32768, 3584]",
                lambda: k("embed_rows_bf16", (32768,), 256, ids, table, out, 152064, 3584, 1.0),
                2 * out.numel() * 2 / BANDWIDTH, lambda: F.embedding(ids, table))


# Attention ----------------------------------------------------------------------------------------------------------

class Batch:
    """Sequences given as (q_len, own_len, prefix), `prefix` an index into `prefixes` (lengths) or None. Slots have
    gaps, filled with NaN: a key read from outside the ranges shows."""

    def __init__(self, sequences, prefixes, hq, hk, dim, scale=1.0, dtype=torch.bfloat16):
        self.ending = ENDINGS[dtype]
        self.hq, self.hk, self.dim = hq, hk, dim
        slot, self.rows, starts = 3, [], []
        for length in prefixes:
            starts.append(slot)
            slot += length + 1
        query = 0
        for q_len, own_len, prefix in sequences:
            shared = (0, 0) if prefix is None else (starts[prefix], prefixes[prefix])
            self.rows.append((query, q_len, slot, own_len, *shared))
            query, slot = query + q_len, slot + own_len + 2
        self.tokens = query
        self.q = randn(query, hq, dim, dtype=dtype, scale=scale)
        self.k, self.v = (randn(slot, hk, dim, dtype=dtype) for _ in range(2))
        unused = torch.ones(slot, dtype=torch.bool, device=DEVICE)
        for row in self.rows:
            unused[self.keys(row)] = False
        self.k[unused], self.v[unused] = math.nan, math.nan
        self.out = torch.full_like(self.q, math.nan)
        self.lse = torch.full((query, hq), math.nan, device=DEVICE)
        self.table = ints(self.rows)
        tile = PREFILL_ROWS[dim]
        work = [(s, b) for s, row in enumerate(self.rows) for b in range(-(-row[1] * (hq // hk) // tile))]
        group = hq // hk
        work.sort(key=lambda w: -(sum(self.rows[w[0]][i] for i in (3, 5)) - self.rows[w[0]][1]
                                  + min(self.rows[w[0]][1], (w[1] + 1) * tile // group)))
        self.items, self.work = len(work), ints(work)

    def keys(self, row):
        return torch.cat([torch.arange(row[4], row[4] + row[5]), torch.arange(row[2], row[2] + row[3])]).to(DEVICE)

    def reference(self, scale, softcap, window):
        out = torch.empty(self.tokens, self.hq, self.dim, device=DEVICE)
        lse = torch.empty(self.tokens, self.hq, device=DEVICE)
        for row in self.rows:
            slots, (start, count) = self.keys(row), row[:2]
            group = self.hq // self.hk
            q = self.q[start:start + count].float()
            k, v = (t[slots].float().repeat_interleave(group, 1) for t in (self.k, self.v))
            scores = torch.einsum("qhd,khd->hqk", q, k) * scale
            if softcap > 0:
                scores = softcap * torch.tanh(scores / softcap)
            position = torch.arange(len(slots) - count, len(slots), device=DEVICE)[:, None]
            key = torch.arange(len(slots), device=DEVICE)[None]
            hidden = key > position
            if window > 0:
                hidden |= key <= position - window
            scores.masked_fill_(hidden, -math.inf)
            out[start:start + count] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
            lse[start:start + count] = scores.logsumexp(-1).T
        return out, lse

    def prefill(self, k, scale, softcap=0.0, window=0, lse=True):
        k(f"attention_prefill_d{self.dim}{self.ending}", (self.items * self.hk,), 128, self.q, self.k, self.v, self.out,
          self.lse if lse else None, self.table, self.work, self.hq, self.hk, scale, softcap, window,
          shared=PREFILL_SHARED[self.dim])

    def buffers(self, splits):
        return (torch.full((len(self.rows), self.hq, splits, self.dim), math.nan, device=DEVICE),
                torch.full((len(self.rows), self.hq, splits), math.nan, device=DEVICE))

    def decode(self, k, scale, softcap, window, split_keys, splits, partial, partial_lse):
        k(f"attention_decode_d{self.dim}{self.ending}", (splits, self.hk, len(self.rows)), 128, self.q, self.k, self.v, self.out,
          partial, partial_lse, self.table, self.hq, self.hk, scale, softcap, window, split_keys,
          shared=DECODE_SHARED[self.dim])
        if splits > 1:
            k(f"attention_decode_reduce{self.ending}", (self.hq, len(self.rows)), self.dim, partial, partial_lse, self.out,
              self.table, splits, window, split_keys)


ATTENTION_CASES = [  # softcap, window, scale of q
    ("plain", 0.0, 0, 1.0), ("softcap", 30.0, 0, 6.0), ("window", 0.0, 50, 1.0), ("both", 50.0, 130, 3.0),
]
ATTENTION_TOLERANCE = {torch.bfloat16: (6e-3, 1.2e-2), torch.float16: (8e-4, 1.5e-3)}
HEADS = {64: [(14, 2), (4, 4)], 96: [(6, 2), (32, 32)], 128: [(28, 4), (16, 1), (8, 8)], 256: [(8, 4), (16, 16)]}


def check_prefill(k, report):
    sequences = [(1, 1, None), (7, 7, 0), (200, 200, None), (33, 90, 1), (129, 129, 1), (64, 64, None), (1, 300, 0),
                 (300, 301, None), (20, 20, 1), (20, 20, 1)]
    for dim, heads in HEADS.items():
        for hq, hk in heads:
            for (name, softcap, window, scale), dtype in itertools.product(ATTENTION_CASES, ENDINGS):
                batch = Batch(sequences, [65, 257], hq, hk, dim, scale, dtype)
                batch.prefill(k, dim ** -0.5, softcap, window)
                out, lse = batch.reference(dim ** -0.5, softcap, window)
                label = f"attention_prefill {NAMES[dtype]} D={dim} {hq}/{hk} {name}"
                report.check(label, batch.out, out, *ATTENTION_TOLERANCE[dtype])
                report.check(f"{label} lse", batch.lse, lse, 1e-4, 1e-5)


def check_decode(k, report):
    sequences = [(1, 1, None), (1, 16, None), (1, 17, 0), (1, 640, None), (1, 63, 1), (1, 65, 1), (1, 1000, 1)]
    for dim, heads in HEADS.items():
        for hq, hk in heads:
            for (name, softcap, window, scale), dtype in itertools.product(ATTENTION_CASES, ENDINGS):
                for split_keys in (64, 192, 4096):
                    batch = Batch(sequences, [64, 257], hq, hk, dim, scale, dtype)
                    splits = -(-1257 // split_keys)
                    batch.decode(k, dim ** -0.5, softcap, window, split_keys, splits, *batch.buffers(splits))
                    out, _ = batch.reference(dim ** -0.5, softcap, window)
                    label = f"attention_decode {NAMES[dtype]} D={dim} {hq}/{hk} {name} split {split_keys}"
                    report.check(label, batch.out, out, *ATTENTION_TOLERANCE[dtype])


def causal_flops(batch):
    pairs = sum(row[1] * (row[3] + row[5] - row[1]) + row[1] * (row[1] + 1) // 2 for row in batch.rows)
    return 4 * pairs * batch.hq * batch.dim


def time_prefill(k, report):
    for dim, hq, hk in ((64, 14, 2), (96, 32, 32), (128, 28, 4), (128, 32, 8), (256, 16, 8)):
        batch = Batch([(2048, 2048, None)] * 16, [], hq, hk, dim)
        q = randn(16, hq, 2048, dim, dtype=torch.bfloat16)
        kk, v = (randn(16, hk, 2048, dim, dtype=torch.bfloat16) for _ in range(2))
        flops = causal_flops(batch)
        run = lambda: batch.prefill(k, dim ** -0.5, lse=False)
        peer = lambda: F.scaled_dot_product_attention(q, kk, v, is_causal=True, enable_gqa=True)
        report.time(f"attention_prefill 16 x 2048 {hq}/{hk} D={dim}", run, flops / MATMUL, peer)
        print(f"     attention_prefill D={dim} {hq}/{hk}: {flops / report.rows[-1][1] / 1e12:.0f} TFLOP/s, "
              f"torch {flops / report.rows[-1][3] / 1e12:.0f}", flush=True)
    batch = Batch([(512, 512, g) for g in range(8) for _ in range(8)], [1536] * 8, 28, 4, 128)
    report.time("attention_prefill 8 x 8 suffixes 1536+512", lambda: batch.prefill(k, 128 ** -0.5, lse=False),
                causal_flops(batch) / MATMUL)
    batch = Batch([(40, 40, g) for g in range(8) for _ in range(8)], [1536] * 8, 28, 4, 128)
    report.time("attention_prefill 8 x 8 suffixes 1536+40", lambda: batch.prefill(k, 128 ** -0.5, lse=False),
                causal_flops(batch) / MATMUL)


def time_decode(k, report):
    for count, length, hq, hk, dim in ((64, 640, 28, 4, 128), (64, 4096, 28, 4, 128), (4, 8192, 28, 4, 128),
                                       (64, 2048, 14, 2, 64), (64, 2048, 16, 8, 256)):
        batch = Batch([(1, length, None)] * count, [], hq, hk, dim)
        blocks = 4 * 132
        split_keys = max(64, -(-count * hk * length // blocks // 64) * 64)
        splits = -(-length // split_keys)
        buffers = batch.buffers(splits)
        q = randn(count, hq, 1, dim, dtype=torch.bfloat16)
        kk, v = (randn(count, hk, length, dim, dtype=torch.bfloat16) for _ in range(2))
        report.time(f"attention_decode {count} x {length} {hq}/{hk} D={dim} x{splits}",
                    lambda: batch.decode(k, dim ** -0.5, 0.0, 0, split_keys, splits, *buffers),
                    2 * count * length * hk * dim * 2 / BANDWIDTH,
                    lambda: F.scaled_dot_product_attention(q, kk, v, enable_gqa=True))


# Logits -------------------------------------------------------------------------------------------------------------

def philox(counter, key):
    """Philox4x32-10 on int64 tensors holding 32-bit words: the oracle of the kernel's own."""
    mask = 0xFFFFFFFF
    c, (k0, k1) = list(counter), key

    def product(a, b):  # high and low words of a 32 x 32 product, in 64-bit signed arithmetic
        low, high = (a & 0xFFFF) * b, (a >> 16) * b
        total = (high + (low >> 16))
        return (total >> 16) & mask, ((total << 16) | (low & 0xFFFF)) & mask
    for _ in range(10):
        h0, l0 = product(c[0], 0xD2511F53)
        h1, l1 = product(c[2], 0xCD9E8D57)
        c = [h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0]
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c


def gumbel(vocabulary, seed, step):
    groups = torch.arange(-(-vocabulary // 4), device=DEVICE)
    zero = torch.zeros_like(groups)
    drawn = philox([groups, zero + step, zero, zero], (seed & 0xFFFFFFFF, seed >> 32))
    words = torch.stack(drawn, -1).flatten()[:vocabulary]
    v = ((words.float().double() * 2.0 ** -32 + 2.0 ** -33).float()).clamp(max=1 - 2.0 ** -24)
    return -torch.log(-torch.log1p(-v.double()))


class Sampling:
    """The inputs but for the logits, and the buffers, of one shape of sample."""

    def __init__(self, rows, vocabulary, temperatures, seeds, steps, allowed=None):
        self.vocabulary, self.chunks = vocabulary, -(-vocabulary // 4096)
        self.temperatures, self.seeds, self.steps, self.allowed = temperatures, seeds, steps, allowed
        self.partial = torch.full((rows, self.chunks, 8), math.nan, device=DEVICE)
        self.tokens = torch.full((rows,), -7, dtype=torch.int32, device=DEVICE)
        self.plain, self.sampled, self.lse = (torch.full((rows,), math.nan, device=DEVICE) for _ in range(3))

    def launch(self, k, logits):
        rows = len(logits)
        k(f"sample_chunks_{NAMES[logits.dtype]}", (self.chunks, rows), 256, logits, self.temperatures, self.seeds,
          self.steps, self.allowed, self.partial, self.vocabulary)
        k("sample_finish", (rows,), 32, self.partial, self.temperatures, self.tokens, self.plain, self.sampled,
          self.lse, self.chunks)
        return self.tokens, self.plain, self.sampled, self.lse


def sample_oracle(logits, allowed, temperature, seed, step, token):
    """For one row, float64: how far the token's score is below the best, and its two log-probabilities."""
    row = logits if allowed is None else logits.masked_fill(~allowed, -math.inf)
    plain = logits[token] - logits.logsumexp(-1)
    if temperature == 0:
        return row.max() - row[token], plain, torch.zeros_like(plain)
    row = row / temperature
    scores = row + gumbel(len(row), seed, step)
    return scores.max() - scores[token], plain, row[token] - row.logsumexp(-1)


def check_sample(k, report):
    ones = [torch.tensor(0xFFFFFFFF)] * 4
    assert [hex(int(word)) for word in philox(ones, (0xFFFFFFFF, 0xFFFFFFFF))] == [
        "0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"], "Philox4x32-10's published known answer"
    for dtype in (torch.bfloat16, torch.float32):
        for rows, vocabulary in ((5, 32), (4, 4097), (7, 151665), (3, 262144)):
            for masked in (False, True):
                check_sample_shape(k, report, dtype, rows, vocabulary, masked)
    rest = (torch.ones(2, device=DEVICE), torch.tensor([1, 2], device=DEVICE), ints([0, 0]))
    none = torch.zeros(2, 32, dtype=torch.int32, device=DEVICE)
    tokens = Sampling(2, 1000, *rest, none).launch(k, randn(2, 1000))[0]
    report.equal("sample with no allowed token", tokens, ints([-1, -1]))
    check_distribution(k, report)


def check_sample_shape(k, report, dtype, rows, vocabulary, masked):
    logits = randn(rows, vocabulary, dtype=dtype, scale=3)
    temperatures = torch.tensor([0.0, 1.0, 0.7, 1.5, 0.0, 1.0, 0.2][:rows], device=DEVICE)
    seeds = torch.tensor([0x0123456789ABCDEF, 1, 2**63 - 1, 42, 5, 6, 7][:rows], device=DEVICE)
    steps = ints([0, 1, 2, 77, 5, 6, 2**31 - 1][:rows])
    words = torch.randint(-(2**31), 2**31, (rows, -(-vocabulary // 32)), device=DEVICE).int() if masked else None
    allowed = [None] * rows
    if masked:
        bits = words[:, :, None] >> torch.arange(32, device=DEVICE, dtype=torch.int32) & 1
        allowed = bits.bool().flatten(1)[:, :vocabulary]
    got = Sampling(rows, vocabulary, temperatures, seeds, steps, words).launch(k, logits)
    want = [sample_oracle(logits[b].double(), allowed[b], temperatures[b].double().item(), int(seeds[b]), int(steps[b]),
                          int(got[0][b])) for b in range(rows)]
    given_up, plain, sampled = (torch.stack(values) for values in zip(*want))
    label = f"sample {NAMES[dtype]} [{rows}, {vocabulary}]{' masked' if masked else ''}"
    # A near tie may go either way by rounding, so the check is of the score that was given up.
    report.check(f"{label} token", given_up, torch.zeros_like(given_up), 1e-4)
    report.check(f"{label} log-probability", got[1], plain, 1e-4, 1e-5)
    report.check(f"{label} tempered", got[2], sampled, 1e-4, 1e-5)
    report.check(f"{label} lse", got[3], logits.double().logsumexp(-1), 1e-4, 1e-5)


def check_distribution(k, report):
    """Draws from one row, each with its own seed: frequencies within five standard errors of the softmax."""
    rows, vocabulary = 65_535, 32
    logits = randn(1, vocabulary).expand(rows, -1).contiguous()
    seeds = torch.arange(rows, device=DEVICE)
    sampling = Sampling(rows, vocabulary, torch.ones(rows, device=DEVICE), seeds, ints([0] * rows))
    tokens = sampling.launch(k, logits)[0]
    p = logits[0].softmax(-1)
    got = torch.bincount(tokens, minlength=vocabulary) / rows
    report.check("sample frequencies", (got - p) / (p * (1 - p) / rows).sqrt(), torch.zeros_like(p), 5.0)


def lse_buffers(rows, vocabulary):
    chunks = -(-vocabulary // 4096)
    return torch.empty(rows, chunks, 2, device=DEVICE), torch.full((rows,), math.nan, device=DEVICE)


def launch_lse(k, logits, partial, lse):
    rows, chunks = partial.shape[:2]
    k(f"logsumexp_rows_{NAMES[logits.dtype]}", (chunks, rows), 256, logits, partial, logits.shape[1])
    k("logsumexp_finish", (rows,), 32, partial, lse, chunks)
    return lse


def check_logsumexp(k, report):
    for dtype in (torch.bfloat16, torch.float32):
        for rows, vocabulary in ((1, 1), (3, 333), (5, 4096), (4, 152064), (3, 151665)):
            logits = randn(rows, vocabulary, dtype=dtype, scale=5)
            if vocabulary > 4:
                logits[0, :3] = -math.inf
            lse, want = launch_lse(k, logits, *lse_buffers(rows, vocabulary)), logits.double().logsumexp(-1)
            report.check(f"logsumexp_rows {NAMES[dtype]} [{rows}, {vocabulary}]", lse, want, 2e-5, 1e-6)
            ids = torch.randint(3 if vocabulary > 4 else 0, vocabulary, (rows, 7), device=DEVICE, dtype=torch.int32)
            out = torch.full((rows, 7), math.nan, device=DEVICE)
            k(f"gather_logprob_{NAMES[dtype]}", (-(-rows * 7 // 256),), 256, logits, lse, ids, out, rows, 7, vocabulary)
            report.check(f"gather_logprob {NAMES[dtype]} [{rows}, {vocabulary}]", out,
                         logits.double().gather(1, ids.long()) - want[:, None], 1e-4, 1e-6)


def time_logits(k, report):
    rows, vocabulary = 64, 152064
    for dtype in (torch.bfloat16, torch.float32):
        logits = randn(rows, vocabulary, dtype=dtype, scale=3)
        sampling = Sampling(rows, vocabulary, torch.ones(rows, device=DEVICE), torch.arange(rows, device=DEVICE),
                            ints(range(rows)))
        buffers = lse_buffers(rows, vocabulary)
        bound = logits.numel() * logits.element_size() / BANDWIDTH
        report.time(f"sample {NAMES[dtype]} [64, 152064]", lambda: sampling.launch(k, logits), bound,
                    lambda: torch.multinomial(logits.float().softmax(-1), 1))
        report.time(f"logsumexp_rows {NAMES[dtype]} [64, 152064]", lambda: launch_lse(k, logits, *buffers), bound,
                    lambda: logits.float().logsumexp(-1))


FAMILIES = {
    "norm": (check_norm, time_norm),
    "rope": (check_rope, time_rope),
    "activation": (check_activation, time_activation),
    "embedding": (check_embedding, time_embedding),
    "logsumexp": (check_logsumexp, None),
    "sample": (check_sample, time_logits),
    "prefill": (check_prefill, time_prefill),
    "decode": (check_decode, time_decode),
}


def main(families, description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="src/lm/kernels")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--only", choices=families, nargs="+", default=list(families), help="families of kernels")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    kernels, report = Kernels(options.folder, options.arch), Report()
    chosen = [families[name] for name in options.only]
    for check, _ in chosen:
        check(kernels, report)
        torch.cuda.synchronize()
    if not options.check_only:
        for _, time in chosen:
            if time:
                time(kernels, report)
                torch.cuda.empty_cache()
        report.table()
    print(f"\n{len(report.failed)} checks failed" + "".join(f"\n  {name}" for name in report.failed))
    sys.exit(bool(report.failed))


if __name__ == "__main__":
    main(FAMILIES, __doc__)

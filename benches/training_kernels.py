"""Training's CUDA kernels against PyTorch's float32 autograd on ragged and odd shapes, then timed beside PyTorch's own
bf16 operations at the shapes of Qwen2.5 0.5B and 1.5B, 8 sequences of 1,024 tokens.

  python3 benches/training_kernels.py [src/lm/kernels] [--arch sm_90] [--check-only] [--only NAME ..]

Needs and prints what kernels.py does.
"""

import math

import cupy
import numpy as np
import torch
import torch.nn.functional as F
from cupy_backends.cuda.libs import cublas
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels import (BANDWIDTH, DEVICE, MATMUL, PREFILL_SHARED, ints, main, randn, rms, rope_table, tolerance, up32)

BF16 = torch.bfloat16
MODELS = {"0.5B": (896, 4864, 14, 2, 64), "1.5B": (1536, 8960, 12, 2, 128)}  # width, inner, heads, kv heads, head
TOKENS, LENGTH = 8192, 1024
PROCESSORS = torch.cuda.get_device_properties(0).multi_processor_count


def empty(*shape, dtype=BF16):
    """Poisoned: a kernel that leaves an element shows."""
    return torch.full(shape, math.nan, device=DEVICE, dtype=dtype)


# Rows ---------------------------------------------------------------------------------------------------------------

def next_power(n):
    return 1 << (n - 1).bit_length()


def row_lanes(width):
    return next_power(width // 8) if width <= 256 else up32(width // 8)


def norm_backward(k, x, weight, d_y, residual, d_weight):
    width = x.shape[-1]
    rows, lanes = x.numel() // width, row_lanes(width)
    threads = 256 if lanes <= 32 else lanes
    slots = threads // lanes
    blocks = min(-(-rows // slots), PROCESSORS * min(max(1024 // threads, 1), 8))
    d_x, partial = torch.empty_like(x), torch.empty(blocks * slots, width, device=DEVICE)
    k("rms_norm_backward_bf16", (blocks,), threads, x, weight, d_y, residual, d_x, partial, rows, width, 1e-6, lanes)
    k("add_column_sums", (-(-width // 32),), 1024, partial, d_weight, blocks * slots, width)
    return d_x


def check_norm_backward(k, report):
    for rows, width in ((1, 8), (7, 64), (5000, 64), (999, 128), (33, 200), (3, 256), (2500, 896), (17, 1000),
                        (1001, 1536), (300, 8192)):
        x, d_y, residual = (randn(rows, width, dtype=BF16) for _ in range(3))
        weight, total = randn(width, dtype=BF16), randn(width)
        fx, fw = x.float().requires_grad_(), weight.float().requires_grad_()
        want_x, want_w = torch.autograd.grad(rms(fx, fw, 1e-6, False), (fx, fw), d_y.float())
        d_weight = total.clone()
        label = f"rms_norm_backward [{rows}, {width}]"
        report.check(label, norm_backward(k, x, weight, d_y, None, d_weight), want_x, *tolerance(BF16))
        report.check(f"{label} weight", d_weight, total + want_w, 1e-4 * math.sqrt(rows) + 1e-4, 1e-4)
        again = total.clone()
        report.check(f"{label} beside", norm_backward(k, x, weight, d_y, residual, again), want_x + residual.float(),
                     *tolerance(BF16))
        report.equal(f"{label} weight again", again, d_weight)


def time_norm_backward(k, report):
    for name, (width, _, heads, kv_heads, dim) in MODELS.items():
        for label, shape in (("", (TOKENS, width)), (" heads", (TOKENS * heads, dim))):
            x, d_y, residual = (randn(*shape, dtype=BF16) for _ in range(3))
            weight, total = randn(shape[1], dtype=BF16), torch.zeros(shape[1], device=DEVICE)
            px, pw = x.clone().requires_grad_(), weight.clone().requires_grad_()
            out, lanes = torch.empty_like(x), row_lanes(shape[1])

            def both():
                if lanes <= 32:
                    k("rms_norm_heads_bf16", (-(-shape[0] * lanes // 256),), 256, x, weight, out, *shape, 1e-6, lanes)
                else:
                    k("rms_norm_bf16", (shape[0],), lanes, x, weight, out, shape[1], 1e-6, 0)
                norm_backward(k, x, weight, d_y, residual, total)
            report.time(f"rms_norm, its backward + residual {name}{label}", both, 6 * x.numel() * 2 / BANDWIDTH,
                        lambda: torch.autograd.grad(F.rms_norm(px, (shape[1],), pw, 1e-6), (px, pw), d_y)[0] + residual)


def bias_backward(k, d_y, d_bias):
    rows, width = d_y.shape
    columns = -(-width // 256)
    chunks = min(-(-rows // 64), -(-2 * PROCESSORS // columns))
    partial = torch.empty(8 * chunks, width, device=DEVICE)
    k("column_sums_bf16", (columns, chunks), 256, d_y, partial, rows, width)
    k("add_column_sums", (-(-width // 32),), 1024, partial, d_bias, 8 * chunks, width)


def check_bias_backward(k, report):
    for rows, width in ((1, 8), (65, 1000), (1000, 1152), (8192, 2048), (3, 96)):
        d_y, total = randn(rows, width, dtype=BF16), randn(width)
        want = total.double() + d_y.double().sum(0)
        bias_backward(k, d_y, total)
        report.check(f"bias_backward [{rows}, {width}]", total, want, 1e-5 * math.sqrt(rows) + 1e-5, 1e-6)


def time_bias_backward(k, report):
    for name, (_, _, heads, kv_heads, dim) in MODELS.items():
        d_y = randn(TOKENS, (heads + 2 * kv_heads) * dim, dtype=BF16)
        total = torch.zeros(d_y.shape[1], device=DEVICE)
        report.time(f"bias_backward {name}", lambda: bias_backward(k, d_y, total), d_y.numel() * 2 / BANDWIDTH,
                    lambda: d_y.sum(0))


def gated_backward(k, packed, d_y):
    out = torch.full_like(packed, math.nan)
    k("swiglu_backward_bf16", (len(packed), -(-d_y.shape[1] // 2048)), 256, packed, d_y, out, d_y.shape[1])
    return out


def check_gated_backward(k, report):
    for rows, inner in ((1, 8), (5, 1000), (33, 4864), (3, 18944)):
        packed, d_y = randn(rows, 2 * inner, dtype=BF16, scale=3), randn(rows, inner, dtype=BF16)
        leaf = packed.float().requires_grad_()
        gate, up = leaf.split(inner, -1)
        want, = torch.autograd.grad(F.silu(gate) * up, leaf, d_y.float())
        report.check(f"swiglu_backward [{rows}, {inner}]", gated_backward(k, packed, d_y), want, *tolerance(BF16))


def time_gated_backward(k, report):
    for name, (_, inner, *_rest) in MODELS.items():
        packed, d_y = randn(TOKENS, 2 * inner, dtype=BF16), randn(TOKENS, inner, dtype=BF16)
        out, leaf = torch.empty_like(packed), packed.clone().requires_grad_()
        y, grid = torch.empty_like(d_y), (TOKENS, -(-inner // 2048))

        def both():
            k("swiglu_bf16", grid, 256, packed, y, inner)
            k("swiglu_backward_bf16", grid, 256, packed, d_y, out, inner)

        def peer():
            gate, up = leaf.split(inner, -1)
            return torch.autograd.grad(F.silu(gate) * up, leaf, d_y)
        report.time(f"swiglu, its backward {name}", both, 8 * d_y.numel() * 2 / BANDWIDTH, peer)


# Heads --------------------------------------------------------------------------------------------------------------

def head_grid(rows, heads, dim):
    return (-(-rows * heads * next_power(dim // 16) // 256),)


def turned(x, cos, sin, way=1):
    half, c, s = x.shape[-1] // 2, cos[:, None], way * sin[:, None]
    return torch.cat([x[..., :half] * c - x[..., half:] * s, x[..., half:] * c + x[..., :half] * s], -1)


def check_rotate(k, report):
    for dim, hq, hk, rows in ((64, 14, 2, 5), (96, 5, 5, 19), (128, 12, 2, 33), (128, 8, 8, 1), (256, 8, 4, 7),
                              (16, 4, 2, 9)):
        heads = hq + 2 * hk
        packed, bias = randn(rows, heads * dim, dtype=BF16), randn(heads * dim, dtype=BF16)
        cos, sin = (table[torch.randperm(300, device=DEVICE)[:rows]].contiguous() for table in rope_table(300, dim))
        parts = [empty(rows, hq, dim), empty(rows, hk, dim), empty(rows, hk, dim)]
        numbers = (rows, hq, hk, dim)
        for added, angles in ((bias, (cos, sin)), (None, (None, None))):
            k("split_heads_bf16", head_grid(rows, heads, dim), 256, packed, added, *parts, *angles, *numbers, 1.0)
            whole = packed.float() + (0 if added is None else added.float())
            q, key, v = whole.view(rows, heads, dim).split([hq, hk, hk], 1)
            if angles[0] is not None:
                q, key = turned(q, cos, sin), turned(key, cos, sin)
            label = f"split_heads D={dim} {hq}/{hk} T={rows}{'' if added is None else ' biased, rotated'}"
            for name, got, want in zip("qkv", parts, (q, key, v)):
                report.check(f"{label} {name}", got, want, *tolerance(BF16))
        back = empty(rows, heads * dim)
        k("join_heads_bf16", head_grid(rows, heads, dim), 256, back, *parts, cos, sin, *numbers, -1.0)
        q, key, v = (p.float() for p in parts)
        want = torch.cat([turned(q, cos, sin, -1), turned(key, cos, sin, -1), v], 1).flatten(1)
        report.check(f"join_heads D={dim} {hq}/{hk} T={rows}", back, want, *tolerance(BF16))
        alone = empty(rows, hq, dim)
        k("split_heads_bf16", head_grid(rows, hq, dim), 256, parts[0], None, alone, None, None, cos, sin, rows, hq, 0,
          dim, -1.0)
        report.check(f"rotate back D={dim} {hq} T={rows}", alone, turned(q, cos, sin, -1), *tolerance(BF16))


def time_rotate(k, report):
    for name, (_, _, hq, hk, dim) in MODELS.items():
        heads = hq + 2 * hk
        packed, bias = randn(TOKENS, heads * dim, dtype=BF16), randn(heads * dim, dtype=BF16)
        cos, sin = (table.repeat(TOKENS // LENGTH, 1) for table in rope_table(LENGTH, dim))
        parts = [empty(TOKENS, hq, dim), empty(TOKENS, hk, dim), empty(TOKENS, hk, dim)]
        numbers, bound = (TOKENS, hq, hk, dim), 2 * packed.numel() * 2 / BANDWIDTH
        report.time(f"split_heads {name}", lambda: k("split_heads_bf16", head_grid(TOKENS, heads, dim), 256, packed,
                                                     bias, *parts, cos, sin, *numbers, 1.0), bound)
        report.time(f"join_heads {name}", lambda: k("join_heads_bf16", head_grid(TOKENS, heads, dim), 256, packed,
                                                    *parts, cos, sin, *numbers, -1.0), bound)


class Sequences:
    """Packed sequences, their tables and tensors, and the launches of attention and its backward."""

    QUERIES_SHARED = {64: 73728, 96: 79872, 128: 104448}
    KEYS = {64: (55808, 128, 2), 96: (107520, 256, 1), 128: (140288, 256, 1)}  # shared bytes, threads, blocks at once

    def __init__(self, lengths, hq, hk, dim, scale=1.0):
        self.lengths, self.hq, self.hk, self.dim = lengths, hq, hk, dim
        starts = np.cumsum([0] + lengths)[:-1]
        self.rows, group = sum(lengths), hq // hk
        self.table = ints([(s, n, s, n, 0, 0) for s, n in zip(starts.tolist(), lengths)])
        queries = [(i, t) for i, n in enumerate(lengths) for t in range(-(-n * group // 128))]
        keys = [(i, t) for i, n in enumerate(lengths) for t in range(-(-n // 128))]
        queries.sort(key=lambda item: -item[1])
        keys.sort(key=lambda item: item[1] * 128 - lengths[item[0]])
        self.query_work, self.query_blocks = ints(queries), len(queries) * hk
        self.key_work, self.key_blocks = ints(keys), len(keys) * hk
        wanted = 2 * self.KEYS[dim][2] * PROCESSORS
        self.parts = min(max(wanted // self.key_blocks, 1), 8)
        self.q = randn(self.rows, hq, dim, dtype=BF16, scale=scale)
        self.k, self.v = (randn(self.rows, hk, dim, dtype=BF16) for _ in range(2))
        self.d_output = randn(self.rows, hq, dim, dtype=BF16)
        self.output, self.lse = empty(self.rows, hq, dim), empty(self.rows, hq, dtype=torch.float32)
        self.d_q, self.d_kv = empty(self.rows, hq, dim), empty(2, self.rows, hk, dim)
        self.stats = empty(self.rows, hq, 2, dtype=torch.float32)
        self.partial = empty(2, 8, self.rows, hk, dim, dtype=torch.float32)

    def forward(self, k):
        k(f"attention_prefill_d{self.dim}", (self.query_blocks,), 128, self.q, self.k, self.v, self.output, self.lse,
          self.table, self.query_work, self.hq, self.hk, self.dim ** -0.5, 0.0, 0, shared=PREFILL_SHARED[self.dim])

    def backward_stats(self, k):
        threads = self.rows * self.hq * next_power(self.dim // 8)
        k("attention_backward_stats", (-(-threads // 256),), 256, self.output, self.d_output, self.lse, self.stats,
          self.rows * self.hq, self.dim)

    def backward_queries(self, k):
        k(f"attention_backward_queries_d{self.dim}", (self.query_blocks,), 128, self.q, self.k, self.v, self.d_output,
          self.stats, self.d_q, self.table, self.query_work, self.hq, self.hk, self.dim ** -0.5,
          shared=self.QUERIES_SHARED[self.dim])

    def backward_keys(self, k):
        shared, threads, _ = self.KEYS[self.dim]
        size = self.rows * self.hk * self.dim
        d_keys, d_values = self.partial.view(-1)[:2 * self.parts * size].view(2, -1)
        k(f"attention_backward_keys_d{self.dim}", (self.key_blocks * self.parts,), threads, self.q, self.k, self.v,
          self.d_output, self.stats, d_keys, d_values, self.table, self.key_work, self.hq, self.hk, self.dim ** -0.5,
          self.rows, self.parts, shared=shared)
        k("attention_backward_keys_sum", (-(-size // 2048), 2), 256, d_keys, self.d_kv, self.parts, np.int64(size),
          self.dim ** -0.5)

    def backward(self, k):
        self.backward_stats(k)
        self.backward_queries(k)
        self.backward_keys(k)

    def reference(self):
        """Of each sequence: output, lse, and the gradients of q, k, v; float32."""
        group, start = self.hq // self.hk, 0
        for length in self.lengths:
            at = slice(start, start + length)
            q, key, v = (t[at].float().requires_grad_() for t in (self.q, self.k, self.v))
            scores = torch.einsum("qhd,khd->hqk", q, key.repeat_interleave(group, 1)) * self.dim ** -0.5
            hidden = torch.ones(length, length, dtype=torch.bool, device=DEVICE).triu(1)
            scores = scores.masked_fill(hidden, -math.inf)
            output = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(group, 1))
            grads = torch.autograd.grad(output, (q, key, v), self.d_output[at].float())
            yield at, output.detach(), scores.detach().logsumexp(-1).T, grads
            start += length


def check_attention(k, report):
    lengths = [1, 7, 128, 129, 200, 64, 333, 2, 1000, 31]
    cases = [(64, 14, 2), (64, 4, 4), (64, 16, 1), (96, 6, 2), (96, 3, 3), (128, 12, 2), (128, 8, 8), (128, 16, 1)]
    for dim, hq, hk in cases:
        for parts in (None, 1, 8):
            batch = Sequences(lengths, hq, hk, dim, scale=2.0)
            batch.parts = parts or batch.parts
            batch.forward(k)
            batch.backward(k)
            label = f"attention D={dim} {hq}/{hk} parts {batch.parts}"
            worst = [0.0] * 5
            for at, output, lse, grads in batch.reference():
                got = (batch.output[at], batch.lse[at], batch.d_q[at], batch.d_kv[0, at], batch.d_kv[1, at])
                for i, (mine, want) in enumerate(zip(got, (output, lse, *grads))):
                    # Where a softmax is nearly one key's, its gradient is a small difference of rounded numbers (the
                    # output's among them): the floor is a share of those.
                    error = (mine.float() - want).norm() / (want.norm() + 0.2 * math.sqrt(want.numel()))
                    worst[i] = max(worst[i], error.item() if math.isfinite(error.item()) else math.inf)
            limits = {"output": 5e-3, "lse": 1e-5, "d_q": 1e-2, "d_k": 1e-2, "d_v": 1e-2}
            for (name, limit), error in zip(limits.items(), torch.tensor(worst, device=DEVICE)):
                report.check(f"{label} {name}", error, torch.zeros_like(error), limit)
            before = batch.d_q.clone(), batch.d_kv.clone()
            batch.partial.fill_(math.nan)
            batch.backward(k)
            report.equal(f"{label} again", torch.cat([batch.d_q.flatten(), batch.d_kv.flatten()]),
                         torch.cat([t.flatten() for t in before]))


def time_attention(k, report):
    for name, (_, _, hq, hk, dim) in MODELS.items():
        for count, length in ((8, 1024), (2, 4096), (64, 128)):
            batch = Sequences([length] * count, hq, hk, dim)
            flops = 2 * count * length * (length + 1) // 2 * hq * dim  # of one product
            q, key, v = (randn(count, hq, length, dim, dtype=BF16).requires_grad_() for _ in range(3))
            d_output = randn(count, hq, length, dim, dtype=BF16)
            # The kindest peer: every query head has keys of its own, so that nothing is repeated or summed up.
            peer = lambda: F.scaled_dot_product_attention(q, key, v, is_causal=True)
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                label = f"attention {count} x {length} {hq}/{hk} D={dim}"
                report.time(f"{label} forward", lambda: batch.forward(k), 2 * flops / MATMUL, peer)
                report.time(f"{label} both", lambda: (batch.forward(k), batch.backward(k)), 7 * flops / MATMUL,
                            lambda: torch.autograd.grad(peer(), (q, key, v), d_output))
            if length == LENGTH:
                for part, share in (("stats", 0), ("queries", 3), ("keys", 4)):
                    report.time(f"  {part} ({share} products)", lambda: getattr(batch, f"backward_{part}")(k),
                                share * flops / MATMUL)


# Ends of a step -----------------------------------------------------------------------------------------------------

def token_logprobs(k, logits, targets, temperature):
    out = [empty(len(logits), dtype=torch.float32) for _ in range(3)]
    k("token_logprobs_bf16", (len(logits),), 512, logits, targets, *out, logits.shape[1], 1 / temperature)
    return out


def logits_backward(k, logits, targets, lse, d_logprob, temperature):
    rows, vocabulary = logits.shape
    k("logits_backward_bf16", (-(-vocabulary // 8192), rows), 256, logits, targets, lse, d_logprob, vocabulary,
      1 / temperature)


def check_token_logprobs(k, report):
    for rows, vocabulary in ((1, 64), (5, 1000), (3, 4097), (4, 151665), (6, 152064), (9, 333)):
        for temperature in (1.0, 0.7):
            logits = randn(rows, vocabulary, dtype=BF16, scale=4)
            logits[0, 5:20] = -math.inf
            targets = torch.randint(20, vocabulary, (rows,), device=DEVICE)
            d_logprob = randn(rows)
            d_logprob[-1] = 0
            z = logits.double() / temperature
            logprobs = z.log_softmax(-1)
            want = logprobs.gather(1, targets[:, None])[:, 0]
            entropy = -(logprobs.exp() * logprobs.clamp(min=-1e30)).sum(-1)
            got = token_logprobs(k, logits, targets.int(), temperature)
            label = f"token_logprobs [{rows}, {vocabulary}] T={temperature}"
            for name, mine, right in zip(("", " entropy", " lse"), got, (want, entropy, z.logsumexp(-1))):
                report.check(f"{label}{name}", mine, right, 2e-5, 3e-6)
            onehot = F.one_hot(targets, vocabulary).double()
            slope = (onehot - logprobs.exp()) * (d_logprob.double() / temperature)[:, None]
            logits_backward(k, logits, targets.int(), got[2], d_logprob, temperature)
            report.check(label.replace("token_logprobs", "logits_backward"), logits, slope, 1e-9, 5e-3)


def time_token_logprobs(k, report):
    rows, vocabulary = 2048, 151936
    logits = randn(rows, vocabulary, dtype=BF16, scale=3)
    targets = torch.randint(0, vocabulary, (rows,), device=DEVICE)
    d_logprob, bytes_once = randn(rows), logits.numel() * 2
    thin, leaf, out = targets.int(), logits.clone().requires_grad_(), [empty(rows, dtype=torch.float32) for _ in "123"]
    numbers = (vocabulary, 1.0)

    def forward():
        k("token_logprobs_bf16", (rows,), 512, logits, thin, *out, *numbers)

    def backward():
        logits_backward(k, logits, thin, out[2], d_logprob, 1.0)

    def peer():
        return -F.cross_entropy(leaf.float(), targets, reduction="none")
    report.time("token_logprobs [2048, 151936]", forward, bytes_once / BANDWIDTH, peer)
    report.time("token_logprobs, logits_backward [2048, 151936]", lambda: (forward(), backward()),
                3 * bytes_once / BANDWIDTH, lambda: torch.autograd.grad(peer(), leaf, d_logprob))


def weight_gradient(handle, d_y, x, total):
    """The trainer's cuBLAS call: row-major total [out, in] += d_y' x, as column-major total' += x' d_y."""
    (rows, outs), ins = d_y.shape, x.shape[1]
    one = np.ones(1, dtype=np.float32)
    cublas.setStream(handle, torch.cuda.current_stream().cuda_stream)
    bf16, f32, compute_f32, tensor_op = 14, 0, 68, 99  # cudaDataType, cublasComputeType_t, cublasGemmAlgo_t
    cublas.gemmEx(handle, 0, 1, ins, outs, rows, one.ctypes.data, x.data_ptr(), bf16, ins, d_y.data_ptr(), bf16, outs,
                  one.ctypes.data, total.data_ptr(), f32, ins, compute_f32, tensor_op)


def check_weight_gradient(_k, report):
    handle = cupy.cuda.device.get_cublas_handle()
    for rows, outs, ins in ((1, 8, 16), (37, 96, 64), (1000, 1152, 896)):
        d_y, x, total = randn(rows, outs, dtype=BF16), randn(rows, ins, dtype=BF16), randn(outs, ins)
        want = total.double() + d_y.double().T @ x.double()
        weight_gradient(handle, d_y, x, total)
        report.check(f"weight_gradient {outs} x {ins} over {rows}", total, want, 1e-5 * rows ** 0.5 + 1e-5, 1e-5)


def time_weight_gradient(_k, report):
    handle = cupy.cuda.device.get_cublas_handle()
    for name, (width, inner, *_rest) in MODELS.items():
        d_y, x, total = randn(TOKENS, 2 * inner, dtype=BF16), randn(TOKENS, width, dtype=BF16), torch.zeros(
            2 * inner, width, device=DEVICE)
        report.time(f"weight_gradient gate_up {name}", lambda: weight_gradient(handle, d_y, x, total),
                    2 * d_y.numel() * width / MATMUL, lambda: d_y.T @ x)


def sorted_rows(tokens):
    distinct, counts = torch.unique(tokens, return_counts=True)
    starts = torch.cat([torch.zeros(1, device=DEVICE, dtype=torch.long), counts.cumsum(0)])
    return distinct.int(), starts.int(), torch.sort(tokens, stable=True).indices.int()


def embedding_backward(k, d_x, lists, total):
    k("embedding_backward_bf16", (len(lists[0]), -(-d_x.shape[1] // 1024)), 128, d_x, *lists, total, *total.shape)


def check_embedding_backward(k, report):
    for rows, width, vocabulary in ((1, 8, 5), (300, 904, 40), (1000, 1536, 2000), (64, 3584, 1)):
        d_x, tokens = randn(rows, width, dtype=BF16), torch.randint(0, vocabulary, (rows,), device=DEVICE)
        total = randn(vocabulary, width)
        want = total.double().index_add(0, tokens, d_x.double())
        embedding_backward(k, d_x, sorted_rows(tokens), total)
        report.check(f"embedding_backward [{rows}, {width}] of {vocabulary}", total, want, 1e-5, 1e-5)


def time_embedding_backward(k, report):
    for name, (width, *_rest) in MODELS.items():
        # Like text: few tokens make up much of it.
        tokens = (torch.rand(TOKENS, device=DEVICE) ** 4 * 20000).long()
        d_x, total = randn(TOKENS, width, dtype=BF16), torch.zeros(151936, width, device=DEVICE)
        lists = sorted_rows(tokens)
        bound = (d_x.numel() * 2 + 8 * len(lists[0]) * width) / BANDWIDTH
        report.time(f"embedding_backward {name}, {len(lists[0])} distinct",
                    lambda: embedding_backward(k, d_x, lists, total), bound,
                    lambda: torch.ops.aten.embedding_dense_backward(d_x, tokens, 151936, -1, False))


def sum_of_squares(k, x, partial):
    k("sum_of_squares", (len(partial),), 256, x, partial, np.int64(x.numel()))


def launch_adamw(k, tensors, step, rate=1e-2, decay=0.1, scale=0.5, beta1=0.9, beta2=0.999):
    n = tensors[0].numel()
    k("adamw", (-(-n // 1024),), 256, *tensors, np.int64(n), rate, beta1, beta2, 1e-8, decay,
      1 / (1 - beta1 ** step), 1 / (1 - beta2 ** step), scale)


def whole(weight, low):
    """The float32 whose upper half, rounded away from zero, is `weight`, and whose lower half is `low`."""
    low = low.int() & 0xFFFF
    return (((weight.view(torch.int16).int() & 0xFFFF) - (low >> 15) << 16) | low).view(torch.float32)


def check_optimizer(k, report):
    for n in (1, 3, 4096, 100_003, 3_000_001):
        x, blocks = randn(n), min(-(-n // 4096), 512)
        partial = empty(blocks, dtype=torch.float64)
        sum_of_squares(k, x, partial)
        want = x.double().square().sum()
        report.check(f"sum_of_squares [{n}]", (partial.sum() / want - 1)[None], torch.zeros(1, device=DEVICE), 1e-6)
        m, v = torch.zeros(n, device=DEVICE), torch.zeros(n, device=DEVICE)
        weight, low = randn(n, dtype=BF16), torch.zeros(n, device=DEVICE, dtype=torch.int16)
        leaf = weight.float().requires_grad_()
        peer = torch.optim.AdamW([leaf], lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1, eps=1e-8)
        for step in (1, 2, 3):
            gradient = randn(n)
            leaf.grad = gradient * 0.5
            peer.step()
            launch_adamw(k, (low, m, v, gradient, weight), step)
        master = whole(weight, low)
        report.check(f"adamw [{n}]", master, leaf.detach(), 2e-6, 2e-6)
        report.check(f"adamw [{n}] weight", weight.float(), master, 1e-30, 2 ** -8)


def time_optimizer(k, report):
    n = 136_134_656  # the embedding of the 0.5B shape
    low, m, v = torch.zeros(n, device=DEVICE, dtype=torch.int16), randn(n), randn(n).abs()
    gradient, weight, leaf = randn(n), randn(n, dtype=BF16), randn(n).requires_grad_()
    leaf.grad = gradient
    peer = torch.optim.AdamW([leaf], lr=1e-6, fused=True, capturable=True)
    report.time("adamw 136 million", lambda: launch_adamw(k, (low, m, v, gradient, weight), 3), 28 * n / BANDWIDTH,
                peer.step)
    partial = empty(512, dtype=torch.float64)
    report.time("sum_of_squares 136 million", lambda: sum_of_squares(k, gradient, partial), 4 * n / BANDWIDTH,
                lambda: gradient.norm())


FAMILIES = {
    "norm": (check_norm_backward, time_norm_backward),
    "bias": (check_bias_backward, time_bias_backward),
    "gated": (check_gated_backward, time_gated_backward),
    "rotate": (check_rotate, time_rotate),
    "logprob": (check_token_logprobs, time_token_logprobs),
    "weight": (check_weight_gradient, time_weight_gradient),
    "embedding": (check_embedding_backward, time_embedding_backward),
    "optimizer": (check_optimizer, time_optimizer),
    "attention": (check_attention, time_attention),
}


if __name__ == "__main__":
    main(FAMILIES, __doc__)

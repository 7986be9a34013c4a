"""A tiny decoder of the Qwen3 architecture, for training; its parameters carry the names that Hugging Face gives them.

In: token ids [batch, time]. Out: hidden states [batch, time, hidden], logits [.., vocabulary] with the tied embedding.
`save` and `load` write and read a Hugging Face directory. Padding stands at the right, where a causal model never looks.
Needs torch and safetensors.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from prompt import MAX_TOKENS, PAD, TOKEN_OF, VOCABULARY, write_tokenizer


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    hidden_size: int = 128
    intermediate_size: int = 256
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    vocab_size: int = VOCABULARY


ROPE_THETA = 10_000.0
EPSILON = 1e-6


class Norm(nn.Module):
    """RMS normalisation over the last axis."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), EPSILON)


def rotate(x, cos, sin):
    """Rotary positions, halves paired as in Hugging Face's models. x: [batch, heads, time, head_dim]."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        wide, narrow = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, wide, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, narrow, bias=False)
        self.o_proj = nn.Linear(wide, shape.hidden_size, bias=False)
        self.q_norm, self.k_norm = Norm(shape.head_dim), Norm(shape.head_dim)

    def forward(self, x, cos, sin):
        batch, time, _ = x.shape
        q, k, v = (p(x).view(batch, time, -1, self.shape.head_dim) for p in (self.q_proj, self.k_proj, self.v_proj))
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin)
        groups = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k, v = (t.repeat_interleave(groups, dim=1) for t in (k, v.transpose(1, 2)))
        # Norms may come back wider than the values under autocast.
        mixed = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, time, -1))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each behind a norm, each added to the stream."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size)
        self.mlp = Mlp(shape)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers, last norm."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size)


class SmallJudge(nn.Module):
    """The language model. `model.` is the prefix that Hugging Face's names have."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        frequencies = ROPE_THETA ** (-torch.arange(0, shape.head_dim, 2).double() / shape.head_dim)
        angles = torch.outer(torch.arange(MAX_TOKENS).double(), frequencies)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.apply(self.start)

    def start(self, module) -> None:
        """Starting weights: small, and smaller where a projection writes to the stream."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(
                module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.weight.shape[1] ** -0.5
            )
        if isinstance(module, (Attention, Mlp)):
            out = module.o_proj if isinstance(module, Attention) else module.down_proj
            with torch.no_grad():
                out.weight.mul_((2 * self.shape.num_hidden_layers) ** -0.5)

    def forward(self, ids):
        """Hidden states behind the last norm, [batch, time, hidden]."""
        x = self.model.embed_tokens(ids)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        x, cos, sin = x.to(dtype), self.cos[: ids.shape[1]].to(dtype), self.sin[: ids.shape[1]].to(dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.model.norm(x)

    def logits(self, hidden):
        """Logits over the vocabulary, [.., vocabulary]."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def parameter_count(self) -> int:
        """Parameters, the tied embedding counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


def config(shape: Shape) -> dict:
    """`config.json`."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **asdict(shape),
        "hidden_act": "silu",
        "rms_norm_eps": EPSILON,
        "rope_theta": ROPE_THETA,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": None,
        "eos_token_id": TOKEN_OF["<|im_end|>"],
        "pad_token_id": PAD,
        "dtype": "float16",
    }


def save(model: SmallJudge, directory: Path) -> None:
    """Writes the model, its configuration and its tokenizer. Weights are rounded to float16: half the size."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    generation = {"do_sample": False, "eos_token_id": TOKEN_OF["<|im_end|>"], "pad_token_id": PAD}
    for name, content in (("config.json", config(model.shape)), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(directory)


def load(directory: Path, device: str) -> SmallJudge:
    """Reads a model back, in float32."""
    known = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model = SmallJudge(Shape(**{name: known[name] for name in asdict(Shape())}))
    weights = load_file(directory / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.to(device).eval()

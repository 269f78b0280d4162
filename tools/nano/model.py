"""The Qwen3 architecture at demonstration size, written for fast training on a CPU.

Parameter names are those of the Hugging Face layout, so that exporting is a cast and a save.
Master weights are float32; matrix products run in `compute`: bfloat16 where the processor has AMX, else
float32, which AVX-512 multiplies faster than bfloat16.
"""

from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional as F


QUERY_CHUNK = 128


@dataclass(frozen=True)
class NanoConfig:
    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048

    def to_dict(self) -> dict:
        return asdict(self)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype)


class Linear(nn.Linear):
    """Bias-free product in the dtype of the input; the master weight stays float32."""

    def __init__(self, size_in: int, size_out: int):
        super().__init__(size_in, size_out, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


def rotate(x, cos, sin):
    """RoPE, half-split: the pairs are (i, i + head_dim / 2)."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c: NanoConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        self.q_proj = Linear(c.hidden_size, self.heads * self.head_dim)
        self.k_proj = Linear(c.hidden_size, self.kv_heads * self.head_dim)
        self.v_proj = Linear(c.hidden_size, self.kv_heads * self.head_dim)
        self.o_proj = Linear(self.heads * self.head_dim, c.hidden_size)
        self.q_norm = RMSNorm(self.head_dim, c.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, c.rms_norm_eps)

    def forward(self, x, cos, sin, allowed):
        rows, length, _ = x.shape
        group = self.heads // self.kv_heads
        q = self.q_norm(self.q_proj(x).view(rows, length, self.heads, self.head_dim))
        k = self.k_norm(self.k_proj(x).view(rows, length, self.kv_heads, self.head_dim))
        v = self.v_proj(x).view(rows, length, self.kv_heads, self.head_dim)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        # One kv head serves `group` query heads: fold the group into the query rows instead of
        # repeating k and v.
        q = q.view(rows, length, self.kv_heads, group, self.head_dim).permute(0, 2, 3, 1, 4)
        q = q.reshape(rows * self.kv_heads, group * length, self.head_dim)
        k = k.transpose(1, 2).reshape(rows * self.kv_heads, length, self.head_dim)
        v = v.transpose(1, 2).reshape(rows * self.kv_heads, length, self.head_dim)
        # Some queries at a time, with only the keys up to their end: what the causal mask would
        # throw away is mostly not computed.
        q = q.view(rows * self.kv_heads, group, length, self.head_dim)
        parts = []
        for first in range(0, length, QUERY_CHUNK):
            end = min(first + QUERY_CHUNK, length)
            part = q[:, :, first:end].reshape(rows * self.kv_heads, -1, self.head_dim)
            scores = torch.bmm(part, k[:, :end].transpose(1, 2))
            scores = scores.view(rows, self.kv_heads, group, end - first, end).float() * self.head_dim ** -0.5
            scores = scores.masked_fill(~allowed[:, None, None, first:end, :end], float("-inf"))
            weights = torch.softmax(scores, dim=-1).to(x.dtype).view(rows * self.kv_heads, -1, end)
            parts.append(torch.bmm(weights, v[:, :end]).view(rows, self.kv_heads, group, end - first, self.head_dim))
        out = torch.cat(parts, dim=3).permute(0, 3, 1, 2, 4)
        return self.o_proj(out.reshape(rows, length, self.heads * self.head_dim))


class MLP(nn.Module):
    def __init__(self, c: NanoConfig):
        super().__init__()
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c: NanoConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x, cos, sin, allowed):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, allowed)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    def __init__(self, c: NanoConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class NanoModel(nn.Module):
    """`forward` takes packed rows: `docs` numbers the conversation each position belongs to."""

    def __init__(self, c: NanoConfig):
        super().__init__()
        self.config = c
        self.compute = torch.bfloat16
        self.model = Backbone(c)
        inverse = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angles = torch.outer(torch.arange(c.max_position_embeddings).float(), inverse)
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._initialise()

    def _initialise(self):
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            std = 0.02 if "embed" in name else weight.shape[1] ** -0.5 / 2
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= (2 * self.config.num_hidden_layers) ** 0.5
            nn.init.normal_(weight, std=std)

    def compile_parts(self):
        """Compile one layer (the same code serves all of them) and the loss, for each row length."""
        for layer in self.model.layers:
            layer.compile(dynamic=False)
        self.loss = torch.compile(self.loss, dynamic=False)

    def hidden(self, tokens, docs):
        length = tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = (docs[:, :, None] == docs[:, None, :]) & causal
        x = F.embedding(tokens, self.model.embed_tokens.weight).to(self.compute)
        cos, sin = self.cos[:length], self.sin[:length]
        for layer in self.model.layers:
            x = layer(x, cos, sin, allowed)
        return x

    def logits(self, hidden):
        return F.linear(self.model.norm(hidden), self.model.embed_tokens.weight.to(hidden.dtype))

    def loss(self, hidden, targets):
        return F.cross_entropy(self.logits(hidden).float(), targets, ignore_index=-100)

    def forward(self, tokens, docs, positions, targets):
        """Mean cross-entropy at `positions` of the flattened rows, where `targets` is not -100."""
        return self.loss(self.hidden(tokens, docs).flatten(0, 1)[positions], targets)

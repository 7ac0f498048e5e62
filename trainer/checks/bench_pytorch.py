#!/usr/bin/env python3
"""Tokens a second of training a plain LLaMA in PyTorch on the CPU: the yardstick of `gauntlet bench train`.

Written as one would for speed within PyTorch: F.scaled_dot_product_attention, F.rms_norm, F.cross_entropy, AdamW with
fused=True, gradients set to None. No clipping, which `gauntlet` does include. One line of JSON, with the fields of
`gauntlet bench train --json`.

    python3 trainer/checks/bench_pytorch.py --preset 1M --threads 2 --batch 8 --steps 10 --engine eager
    python3 trainer/checks/bench_pytorch.py --preset 1M --threads 2 --batch 8 --steps 10 --engine compile
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

# vocab, hidden, layers, heads, kv_heads, ffn, seq_len, tied: trainer/src/model/config.rs
PRESETS = {
    "nano": (256, 128, 2, 4, 2, 320, 128, True),
    "1M": (512, 128, 4, 4, 4, 352, 128, False),
    "7M": (4096, 256, 6, 8, 8, 704, 256, False),
    "25M": (8192, 512, 7, 8, 4, 1408, 512, True),
}


class RMSNorm(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class Layer(nn.Module):
    def __init__(self, hidden, heads, kv_heads, ffn):
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, hidden // heads
        self.attention_norm, self.ffn_norm = RMSNorm(hidden), RMSNorm(hidden)
        self.q = nn.Linear(hidden, heads * self.dim, bias=False)
        self.k = nn.Linear(hidden, kv_heads * self.dim, bias=False)
        self.v = nn.Linear(hidden, kv_heads * self.dim, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, ffn, bias=False)
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, length, hidden = x.shape
        normed = self.attention_norm(x)
        q = self.q(normed).view(batch, length, self.heads, self.dim).transpose(1, 2)
        k = self.k(normed).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        v = self.v(normed).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        x = x + self.output(attended.transpose(1, 2).reshape(batch, length, hidden))
        normed = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Llama(nn.Module):
    def __init__(self, vocab, hidden, layers, heads, kv_heads, ffn, seq_len, tied):
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, kv_heads, ffn) for _ in range(layers))
        self.norm = RMSNorm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        if tied:
            self.head.weight = self.embedding.weight
        half = hidden // heads // 2
        angles = torch.outer(torch.arange(seq_len).double(), 10000.0 ** (-torch.arange(half).double() / half))
        self.register_buffer("cos", angles.cos().float())
        self.register_buffer("sin", angles.sin().float())

    def forward(self, inputs, targets):
        x = self.embedding(inputs)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="1M", choices=PRESETS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--engine", default="eager", choices=["eager", "compile"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    shape = PRESETS[args.preset]
    vocab, seq_len = shape[0], shape[6]
    model = Llama(*shape)
    step_model = torch.compile(model) if args.engine == "compile" else model
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    samples = torch.randint(0, vocab, (8, args.batch, seq_len + 1))
    times, loss = [], None
    # Two steps to warm up: compilation, first touch.
    for step in range(args.steps + 2):
        tokens = samples[step % 8]
        start = time.perf_counter()
        loss = step_model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    times = times[2:]
    tokens = args.batch * seq_len
    print(json.dumps({
        "engine": args.engine,
        "preset": args.preset,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": args.threads,
        "batch": args.batch,
        "seq_len": seq_len,
        "steps": args.steps,
        "tokens_per_second": {"median": tokens / statistics.median(times), "best": tokens / min(times)},
        "loss": loss.item(),
    }))


if __name__ == "__main__":
    main()

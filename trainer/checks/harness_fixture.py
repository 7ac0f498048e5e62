#!/usr/bin/env python3
"""Writes trainer/tests/fixtures/harness.json: log-likelihoods of a tiny LLaMA as transformers computes them.

    pip install torch transformers
    python3 trainer/checks/harness_fixture.py > trainer/tests/fixtures/harness.json

The model's parameters are no file: both sides compute them from the place of each value, here and in
trainer/tests/it/harness.rs. Tokens are bytes.
"""
import json

import numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM

REQUESTS = [
    ("Question: Which is the largest?\nAnswer:", " A"),
    ("Question: Which is the largest?\nAnswer:", " the sun"),
    ("Question: Which is the largest?\nAnswer:", " a planet, perhaps"),
    ("The cat sat on", " the mat."),
    ("x", "y"),
    ("naïve café", " – déjà vu"),
    ("a" * 90, "b" * 30),
    ("A longer context of several sentences. " * 4, " It ends here."),
]


def values(tensor, shape):
    """Value i of tensor t: a mixed 32-bit number as a fraction in [-0.1, 0.1); norms lie around 1."""
    i = numpy.arange(int(numpy.prod(shape)), dtype=numpy.uint64)
    x = (i * 2654435761 + tensor * 97531 + 12345) & 0xFFFFFFFF
    x ^= x >> 15
    x = (x * 739982445) & 0xFFFFFFFF
    x ^= x >> 12
    fraction = (x >> 8).astype(numpy.float32) / numpy.float32(1 << 24)
    value = (fraction - numpy.float32(0.5)) * numpy.float32(0.2)
    return torch.from_numpy((value + numpy.float32(len(shape) == 1)).reshape(shape))


def main():
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).float().eval()
    state = model.state_dict()
    for index, name in enumerate(sorted(state)):
        state[name].copy_(values(index, tuple(state[name].shape)) * (8 if len(state[name].shape) == 2 else 1))
    rows = []
    for context, continuation in REQUESTS:
        # White space at the end of a context belongs to the continuation, as in lm-evaluation-harness.
        stem = context.rstrip()
        before, after = list(stem.encode()), list((context[len(stem):] + continuation).encode())
        inputs = (before + after)[-129:]
        with torch.no_grad():
            logits = model(torch.tensor([inputs[:-1]])).logits[0].float()
        scores = torch.log_softmax(logits, -1)[-len(after):]
        chosen = scores[range(len(after)), after]
        rows.append(
            {
                "context": context,
                "continuation": continuation,
                "log_likelihood": float(chosen.double().sum()),
                "greedy": bool((scores.argmax(-1) == torch.tensor(after)).all()),
            }
        )
    print(json.dumps(rows, indent=1))


main()

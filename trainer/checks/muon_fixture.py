#!/usr/bin/env python3
"""Writes what torch.optim.Muon makes of some matrices, for the tests to compare with.

    python3 trainer/checks/muon_fixture.py > trainer/tests/fixtures/muon.json

Needs PyTorch 2.9 or newer. PyTorch iterates in bf16; the numbers of `f32` come from the same code with its rounding
to bf16 taken out, those of `bf16` from the code as it is.
"""

import json

import torch

SHAPES = [(6, 10), (10, 6), (8, 8), (1, 5)]
STEPS = 3
RATE = 0.02
SETTINGS = {"momentum": 0.95, "decay": 0.1}


def values(seed, shape):
    """Multiples of 1/64 from -1 to 1 that follow from their place."""
    count = shape[0] * shape[1]
    mixed = [(at * at * 37 + at * 101 + seed * 53) % 129 for at in range(count)]
    return (torch.tensor(mixed).float() / 64.0 - 1.0).reshape(shape)


def train(shape):
    parameter = torch.nn.Parameter(values(1, shape))
    optimiser = torch.optim.Muon(
        [parameter],
        lr=RATE,
        weight_decay=SETTINGS["decay"],
        momentum=SETTINGS["momentum"],
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    for step in range(STEPS):
        parameter.grad = values(2 + step, shape)
        optimiser.step()
    return [float(value) for value in parameter.detach().flatten()]


def without_rounding(shape):
    rounded, torch.bfloat16 = torch.bfloat16, torch.float32
    try:
        return train(shape)
    finally:
        torch.bfloat16 = rounded


cases = [
    {
        "rows": shape[0],
        "columns": shape[1],
        "start": values(1, shape).flatten().tolist(),
        "gradients": [values(2 + step, shape).flatten().tolist() for step in range(STEPS)],
        "f32": without_rounding(shape),
        "bf16": train(shape),
    }
    for shape in SHAPES
]
print(json.dumps({"torch": torch.__version__, "rate": RATE, **SETTINGS, "cases": cases}))

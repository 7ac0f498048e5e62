"""Perplexity of a GGUF file on a text by transformers, which reads the file with the package `gguf`: its own
dequantisation, its own names, its own order of rows, its own tokenizer.

    python trainer/checks/smollm2.py MODEL.gguf TEXT SAMPLE_LEN SAMPLES [FOLDER]

With FOLDER, the Hugging Face folder that `gauntlet import` made of the file is compared: parameters and tokens. The
tokens are compared on the text without its digits: transformers overlooks that the pre-tokenizer "smollm" cuts them off.
The perplexity is measured on the folder's tokens, too, which are those that this engine's perplexity is of.

Needs torch, transformers (5), gguf and accelerate.
"""

import math
import os
import re
import sys

import torch
from transformers import AutoTokenizer, LlamaForCausalLM


def perplexity(model, tokens, sample_len, samples):
    total = 0.0
    with torch.no_grad():
        for sample in range(samples):
            ids = torch.tensor(tokens[sample * sample_len:(sample + 1) * sample_len + 1])
            logits = model(ids[None, :-1]).logits[0]
            total += torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").item()
    loss = total / (sample_len * samples)
    print(f"loss {loss:.5f}, perplexity {math.exp(loss):.4f} on {sample_len * samples} tokens", flush=True)


def main():
    path, text, sample_len, samples = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    folder, name = os.path.split(os.path.abspath(path))
    text = open(text, encoding="utf-8", newline="").read()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    print(f"transformers from the GGUF file: {len(tokens)} tokens, beginning {tokens[:12]}")
    model = LlamaForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    perplexity(model, tokens, sample_len, samples)
    for ours in sys.argv[5:]:
        plain = re.sub(r"\d", "", text)
        our_tokenizer = AutoTokenizer.from_pretrained(ours)
        perplexity(model, our_tokenizer(text, add_special_tokens=False)["input_ids"], sample_len, samples)
        both = [t(plain, add_special_tokens=False)["input_ids"] for t in (tokenizer, our_tokenizer)]
        print(f"the folder that gauntlet wrote: the same {len(both[0])} tokens: {both[0] == both[1]}")
        written = LlamaForCausalLM.from_pretrained(ours, dtype=torch.float32).eval()
        pairs = zip(model.state_dict().items(), written.state_dict().items())
        worst = max((a - b).abs().max().item() for (_, a), (_, b) in pairs)
        print(f"the folder that gauntlet wrote: largest difference of a parameter: {worst:.1e}")
        assert both[0] == both[1] and worst < 1e-6


main()

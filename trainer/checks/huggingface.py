"""Logits of this engine against transformers, for models written by either.

    python trainer/checks/huggingface.py fixtures trainer/tests/fixtures/huggingface
    cargo build --release -p trainer --example logits
    python trainer/checks/huggingface.py compare target/release/examples/logits

`fixtures` writes the two tiny models of the Rust tests, with their logits. `compare` makes random models of
many kinds, has the example compute their logits and write them again in another type and in shards, and
loads what it wrote. Needs torch, transformers (5) and numpy.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0}
PLAIN = {"rope_type": "default"}


def make(seed, hidden, heads, kv_heads, ffn, tied, rope, theta=10000.0, layers=2, vocab=256, scale=0.2):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=tied,
        max_position_embeddings=128, rms_norm_eps=1e-5, rope_parameters=dict(rope, rope_theta=theta))
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale + (parameter.dim() == 1))
    return model


def tokens(count, vocab=256):
    return [(index * 37 + 11) % vocab for index in range(count)]


def logits(folder_or_model, ids):
    model = folder_or_model
    if not isinstance(model, LlamaForCausalLM):
        model, report = LlamaForCausalLM.from_pretrained(
            folder_or_model, dtype=torch.float32, output_loading_info=True)
        assert not any(report.values()), report
    with torch.no_grad():
        return model.float().eval()(torch.tensor([ids])).logits[0].numpy()


def fixtures(folder):
    """GQA, tied, llama3 in f32; MHA, untied, linear, f16 in shards."""
    folder = pathlib.Path(folder)
    grouped = make(1, 16, 2, 1, 24, True, LLAMA3)
    grouped.save_pretrained(folder / "grouped")
    whole = make(2, 24, 3, 3, 32, False, LINEAR, theta=500000.0).half()
    whole.save_pretrained(folder / "sharded", max_shard_size="15KB")
    for name in ["grouped", "sharded"]:
        (folder / name / "generation_config.json").unlink()
        expected = logits(folder / name, tokens(8)).astype("<f4")
        (folder / name / "logits.f32").write_bytes(expected.tobytes())


def compare(program):
    cases = {
        "GQA, tied, llama3": make(3, 64, 8, 2, 96, True, LLAMA3, 500000.0),
        "MHA, untied": make(4, 48, 4, 4, 80, False, PLAIN),
        "one key head, tied, linear": make(5, 96, 6, 1, 112, True, LINEAR),
        "GQA, untied, 5 layers": make(6, 40, 5, 5, 64, False, PLAIN, 100000.0, 5, 512),
    }
    worst = 0.0
    for name, model in cases.items():
        for kind, dtype in [("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)]:
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                model.to(dtype).save_pretrained(folder / "theirs", max_shard_size="50KB")
                ids = tokens(100, model.config.vocab_size)
                listed = ",".join(map(str, ids))
                command = [program, folder / "theirs", listed, folder / "logits.f32", folder / "ours", kind, "40000"]
                subprocess.run(command, check=True)
                expected = logits(folder / "theirs", ids)
                ours = numpy.fromfile(folder / "logits.f32", "<f4").reshape(expected.shape)
                again = logits(folder / "ours", ids)
                written = json.loads((folder / "ours" / "config.json").read_text())["torch_dtype"]
                shards = len(list((folder / "ours").glob("*.safetensors")))
                read, wrote = abs(ours - expected).max(), abs(again - expected).max()
                worst = max(worst, read, wrote)
                print(f"{name:28} {written:9} logits to ±{abs(expected).max():.1f}; ours differ by {read:.1e}; "
                      f"theirs of the {shards} shards that we wrote by {wrote:.1e}", flush=True)
    print(f"largest difference {worst:.1e}, allowed 1e-4")
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    {"fixtures": fixtures, "compare": compare}[sys.argv[1]](sys.argv[2])

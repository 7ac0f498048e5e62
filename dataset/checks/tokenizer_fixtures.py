#!/usr/bin/env python3
"""Writes dataset/tests/fixtures/tokenizers: two tiny tokenizers and what Python's `tokenizers` makes of some texts.

    python3 -m venv target/py && target/py/bin/pip install tokenizers==0.23.2
    target/py/bin/python dataset/checks/tokenizer_fixtures.py

`bytes.json` is a byte-level BPE as GPT-2's and SmolLM2's, `pieces.json` a BPE with byte fallback as LLaMA-2's.
dataset/tests/it/tokenizers.rs checks that our tokens are those of `encodings.json`.
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "dataset/tests/fixtures/tokenizers"
TRAINING = [(ROOT / name).read_text() for name in ("README.md", "docs/PROTOCOL.md", "docs/GLOSSARY.md")]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=448, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def pieces():
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=224, special_tokens=special, show_progress=False, limit_alphabet=70)
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator([text.replace("\n", " ") for text in TRAINING], trainer)
    learned = json.loads(learner.to_str())["model"]
    # LLaMA-2's order: special tokens, all bytes, then the pieces.
    names = special + [f"<0x{byte:02X}>" for byte in range(256)]
    names += [name for name in sorted(learned["vocab"], key=learned["vocab"].get) if name not in special]
    vocab = {name: index for index, name in enumerate(names)}
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer


def texts():
    fixed = ["", " ", "a", "The miner commits, then reveals.", "  two  spaces and\ttabs \n\n\n new lines  \r\n", "I'll we've don't CAN'T it's",
             "naïve café ΑΒΓ привет 日本語 한국어 العربية 🦀👩‍👩‍👧 ﬁ \u00a0\u3000\u2009 \u200b", "x = 3.14159 * (y - 27) ** 2; // 1234567890",
             "fn main() {\n    println!(\"{}\", 0x1f_u8);\n}\n", "e\u0301 \u0000 \ufeff \ud7ff \U0010ffff", "<|endoftext|> and </s> are text", "▁▁ a▁b",
             "²³½ Ⅷ ① ٣ १२३", "________ --- === ''' \"\"\" '''s 's 'S"]
    fixed += [TRAINING[0][:700], TRAINING[1][2000:2700]]
    rng = random.Random(1)
    alphabet = "  \t\n\r'aAbBeEstTvlLdm019.,-_ß日🦀\u00a0\u0301"
    fixed += ["".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 120))) for _ in range(30)]
    return fixed


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    cases = {"texts": texts()}
    for name, tokenizer in (("bytes", byte_level()), ("pieces", pieces())):
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
        tokenizer = Tokenizer.from_file(str(path))
        prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in cases["texts"]]
        tokenizer.encode_special_tokens = True
        documents = [tokenizer.encode(text, add_special_tokens=False).ids for text in cases["texts"]]
        decoded = [tokenizer.decode(ids, skip_special_tokens=False) for ids in documents]
        cases[name] = {"documents": documents, "prompts": prompts, "decoded": decoded}
    (FOLDER / "encodings.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    for path in sorted(FOLDER.iterdir()):
        print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

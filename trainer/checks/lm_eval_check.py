#!/usr/bin/env python3
"""The part of lm_eval.sh that is lm-evaluation-harness's: convert, ask, compare.

    lm_eval_check.py convert FILE.gguf FOLDER            transformers reads the GGUF file and writes a Hugging Face folder
    lm_eval_check.py ask FOLDER PROMPTS.json OUT.json    lm-evaluation-harness on MMLU's development questions
    lm_eval_check.py compare OUT.json SAMPLES.jsonl      against `gauntlet eval --samples`
"""
import json
import os
import re
import sys
import tempfile

TASK = """
task: mmlu_dev
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
description: "The following are multiple choice questions (with answers) about {{{{subject}}}}.\\n\\n"
doc_to_text: "{{{{question.strip()}}}}{{% for choice in choices %}}\\n{{{{letters[loop.index0]}}}}. {{{{choice}}}}{{% endfor %}}\\nAnswer:"
doc_to_choice: letters
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""

BLOCK = re.compile(r"(.*)\n(\(A\) .*)\nA: .*The answer is \(([A-F])\)", re.S)


def convert(source, folder):
    import torch
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, name = os.path.split(os.path.abspath(source))
    read = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    # transformers takes what it has read from GGUF for quantised, though it is not any more.
    config = type(read.config)(**{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    model = type(read)(config).float()
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    # transformers does not read which pre-tokenizer the file names, and takes GPT-2's. SmolLM's cuts digits out first, as the
    # tokenizer.json does that the model was published with, and llama.cpp.
    if GGUFReader(source).fields["tokenizer.ggml.pre"].contents() == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.save_pretrained(folder)


def questions(path):
    """The questions of each subject, in order of the subjects' names."""
    rows = []
    for subject, text in sorted(json.load(open(path)).items()):
        for block in text.split("\n\nQ: ")[1:]:
            question, choices, letter = BLOCK.match(block).groups()
            choices = [choice.strip() for choice in re.split(r"\([A-F]\) ", choices)[1:]]
            letters = list("ABCDEF"[: len(choices)])
            row = {"subject": subject.replace("_", " "), "question": question, "answer": letters.index(letter)}
            rows.append(row | {"choices": choices, "letters": letters})
    return rows


def ask(folder, prompts, out):
    import lm_eval
    from lm_eval.tasks import TaskManager

    rows = questions(prompts)
    with tempfile.TemporaryDirectory() as scratch:
        data = os.path.join(scratch, "data.jsonl")
        with open(data, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        with open(os.path.join(scratch, "mmlu_dev.yaml"), "w") as file:
            file.write(TASK.format(data=data))
        result = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": folder, "dtype": "float32"},
            tasks=["mmlu_dev"],
            task_manager=TaskManager(include_path=scratch, include_defaults=False),
            device="cpu",
            batch_size=4,
            num_fewshot=0,
            log_samples=True,
            bootstrap_iters=0,
        )
    samples = sorted(result["samples"]["mmlu_dev"], key=lambda sample: sample["doc_id"])
    scores = [[float(score[0]) for score in sample["filtered_resps"]] for sample in samples]
    figures = result["results"]["mmlu_dev"]
    right = [sample["target"] for sample in samples]
    prompts = [sample["arguments"][0][0] if isinstance(sample["arguments"], (list, tuple))
               else sample["arguments"]["gen_args_0"]["arg_0"] for sample in samples]
    with open(out, "w") as file:
        json.dump({"figures": figures, "answers": right, "scores": scores, "prompts": prompts}, file)
    print({key: value for key, value in figures.items() if key.startswith("acc")})


def compare(theirs, ours):
    theirs = json.load(open(theirs))
    ours = [json.loads(line) for line in open(ours)]
    assert len(ours) == len(theirs["scores"]), (len(ours), len(theirs["scores"]))
    differences, winners, right = [], 0, [0, 0]
    for expected, answer, sample in zip(theirs["scores"], theirs["answers"], ours):
        differences += [abs(a - b) for a, b in zip(expected, sample["log_likelihoods"], strict=True)]
        best = expected.index(max(expected))
        winners += best == sample["winners"]["plain"]
        assert int(answer) == sample["answer"]
        right[0] += best == sample["answer"]
        right[1] += sample["winners"]["plain"] == sample["answer"]
    print(f"questions               {len(ours)}")
    print(f"right, lm-eval          {right[0]} ({right[0] / len(ours):.4f})")
    print(f"right, gauntlet         {right[1]} ({right[1] / len(ours):.4f})")
    print(f"same choice             {winners}")
    print(f"largest difference      {max(differences):.2e} nats of {len(differences)} log-likelihoods")
    print(f"mean difference         {sum(differences) / len(differences):.2e}")
    if max(differences) > 1e-3 or right[0] != right[1]:
        sys.exit("not equal")


{"convert": convert, "ask": ask, "compare": compare}[sys.argv[1]](*sys.argv[2:])

#!/usr/bin/env bash
# Everything that is to be known of a machine with GPUs, in one call: what is found, whether every kernel is right, how
# fast products, attention, copies and whole steps are, and whether a training loses as it does on the processor.
#
#   scripts/gpu_check.sh PROGRAM FOLDER
#
# PROGRAM is the release build of `gauntlet`, FOLDER is made. It has a table (table.md) and the output of each step. A step that fails
# or cannot be done says so in the table, and the others go on; the exit code is 1 if one failed.
# QUICK=1 trains less. Some ten minutes on an H200.
set -u -o pipefail
program=$(realpath "$1")
folder=$2
mkdir -p "$folder"
cd "$folder" || exit 1
failed=0
printf '| step | what | outcome | seconds |\n|---|---|---|---|\n' >table.md

# note STEP WHAT OUTCOME SECONDS
note() {
    printf '| %s | %s | %s | %s |\n' "$@" | tee -a table.md
}

# step NAME WHAT COMMAND…: runs a command with its output in NAME.txt.
step() {
    local name=$1 what=$2 begin=$SECONDS
    shift 2
    if "$@" >"$name.txt" 2>&1; then
        note "$name" "$what" ok $((SECONDS - begin))
        return 0
    fi
    failed=1
    note "$name" "$what" "FAILED: $(tail -n 1 "$name.txt" | tr '|' '/')" $((SECONDS - begin))
    return 1
}

# number KEY FILE: a number of a report in JSON.
number() {
    python3 -c 'import json, sys
value = json.load(open(sys.argv[2]))
for key in sys.argv[1].split("."): value = value[key]
print(value)' "$1" "$2" 2>/dev/null || echo '?'
}

# bench STEP PRESET ARGUMENTS…: steps of training; the report is STEP.json.
bench() {
    local name=$1 preset=$2
    shift 2
    # Reports are on stdout, all else on stderr.
    run() { "$program" bench train --device cuda --preset "$preset" --json "$@" >"$name.json"; }
    if step "$name" "steps of $preset $*" run "$@"; then
        note "$name" "tokens a second" "$(number tokens_per_second.median "$name.json")" ''
        note "$name" "MFU" "$(number mfu "$name.json")" ''
        note "$name" "bytes planned, allocated, used" \
            "$(number planned_bytes "$name.json"), $(number allocated_bytes "$name.json"), $(number used_bytes "$name.json")" ''
    fi
}

# losses FOLDER: the losses of a training, a line each.
losses() {
    python3 -c 'import json, sys
for line in open(sys.argv[1] + "/metrics.jsonl"):
    line = json.loads(line)
    if "loss" in line: print(line["loss"])' "$1"
}

{ uname -a; free -h; nvidia-smi; nvidia-smi topo -m; } >machine.txt 2>&1

# E0, E1: without them nothing else is worth its time.
if ! step E0-E1 "libraries, cards, every kernel against what the emulator computed" "$program" doctor --cuda --quick; then
    cat E0-E1.txt
    echo "the rest is left out; $PWD/table.md"
    exit 1
fi
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
        step "E2-$tool" "every kernel under compute-sanitizer" \
            compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" doctor --cuda --quick
    done
else
    note E2 "every kernel under compute-sanitizer" "not measured: compute-sanitizer is not installed" ''
fi
step E3-E8 "products, attention, what memory bounds, copies" "$program" doctor --cuda && sed -n 's/^card/    card/p' E3-E8.txt

# Of the largest model that the card holds; half of the layers give the MFU of all.
steps=10
[ -n "${QUICK:-}" ] && steps=3
bench E5 8B --batch 12 --steps "$steps" || true
[ -s E5.json ] || bench E5-half 8B --layers 16 --batch 12 --steps "$steps" || true
bench E5-1B 1B --batch 64 --steps "$steps" || true

cards=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
if [ "$cards" -gt 1 ]; then
    bench E9 8B --batch $((8 * cards)) --steps "$steps" || true
else
    note E9 "several cards" "not measured: there is one" ''
fi

# The same training on both; the text is the program's own documentation where there is no other.
count=200
[ -n "${QUICK:-}" ] && count=20
train() {
    "$program" train --out "loss-$1" --device "$1" --model "${MODEL:-1M}" --steps "$count" --precision bf16 \
        --seed 1 --held-out-samples 0 ${DATA:+--data "$DATA"}
}
if step E10-cpu "$count steps of ${MODEL:-1M} on the processor" train cpu && step E10-cuda "the same on the card" train cuda; then
    losses loss-cpu >cpu.txt
    losses loss-cuda >cuda.txt
    apart=$(paste cpu.txt cuda.txt | awk '{ d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > most) most = d } END { printf "%.4f", most }')
    note E10 "largest relative distance of a loss, of 0.01 at most" "$apart" ''
    awk -v apart="$apart" 'BEGIN { exit !(apart <= 0.01) }' || failed=1
fi
echo "$PWD/table.md"
exit $failed

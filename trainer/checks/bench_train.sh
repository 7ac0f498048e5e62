#!/usr/bin/env bash
# Training speed of our engine against candle's autograd and PyTorch (eager and compiled), on the same model, batch,
# dtype (f32) and threads. The programs run in turn, several rounds, since a machine is seldom quiet. What counts is the
# median: the median step of each run, and of these the median over the rounds. The best step of all is shown beside it.
#
#   cargo build --release -p gauntlet
#   GAUNTLET_PYTHON=venv/bin/python trainer/checks/bench_train.sh          # a venv with torch; default python3
#   PRESETS="1M:8:20 7M:8:8" THREADS="2 1" ROUNDS=3 trainer/checks/bench_train.sh
#
# PRESETS lists preset:samples of a step:measured steps. ENGINES may leave programs out (`vector` is our engine as on a
# processor without AMX, `portable` as on one that is not x86-64). GAUNTLET is the program, by default
# target/release/gauntlet.
set -euo pipefail
cd "$(dirname "$0")/../.."

presets=${PRESETS:-"1M:8:20 7M:8:6 25M:4:3"}
threads=${THREADS:-"2 1"}
rounds=${ROUNDS:-3}
engines=${ENGINES:-"cpu vector candle eager compile"}
python=${GAUNTLET_PYTHON:-python3}
gauntlet=${GAUNTLET:-${CARGO_TARGET_DIR:-target}/release/gauntlet}
results=$(mktemp)
trap 'rm -f "$results"' EXIT

for round in $(seq "$rounds"); do
  for count in $threads; do
    for item in $presets; do
      IFS=: read -r preset batch steps <<<"$item"
      for engine in $engines; do
        options=(--preset "$preset" --threads "$count" --batch "$batch" --steps "$steps" --engine "$engine")
        echo "round $round: ${options[*]}" >&2
        case $engine in
          cpu | vector | portable | candle) "$gauntlet" bench train "${options[@]}" --json ;;
          *) "$python" trainer/checks/bench_pytorch.py "${options[@]}" ;;
        esac >>"$results"
      done
    done
  done
done

"$python" - "$results" <<'PYTHON'
import collections, json, statistics, sys

runs = collections.defaultdict(lambda: collections.defaultdict(list))
for line in open(sys.argv[1]):
    run = json.loads(line)
    runs[run["preset"], run["batch"], run["threads"]][run["engine"]].append(run["tokens_per_second"])
print("tokens/s of the median step (of the best one), and how many times as fast ours is")
for (preset, batch, threads), engines in runs.items():
    median = {name: statistics.median(run["median"] for run in list_) for name, list_ in engines.items()}
    best = {name: max(run["best"] for run in list_) for name, list_ in engines.items()}
    print(f"{preset}, batch {batch}, {threads} threads")
    for name in engines:
        ratios = f"{median['cpu'] / median[name]:.2f}x ({best['cpu'] / best[name]:.2f}x)" if "cpu" in best else ""
        print(f"  {name:8} {median[name]:9.0f} ({best[name]:9.0f})  {ratios}")
    others = [name for name in ("eager", "compile") if name in best]
    if "cpu" in best and others:
        ratio = median["cpu"] / max(median[name] for name in others)
        ratio_best = best["cpu"] / max(best[name] for name in others)
        print(f"  against the better of PyTorch: {ratio:.2f}x ({ratio_best:.2f}x)")
PYTHON

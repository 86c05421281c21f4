#!/usr/bin/env bash
# Proves the GPU path right and measures it, in at most 8 minutes, and prints a short table last:
#
#     FASTPETS_PETS=... bash bench/gpu.sh [FOLDER] [--device cpu]
#
# FOLDER (gpu-report) gets a JSON file and the output of each part. With `--device cpu` it is a rehearsal: all of it runs,
# at a small scale, so that it is known to run, and no figure means anything. PYTHON names another interpreter.
# Status 0: every part came to its end and all tests passed.
set -uo pipefail
folder=gpu-report
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then folder=$1; shift; fi
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

status=0
part() { # NAME SECONDS [ARGUMENT ...]: one part, in a process of its own, with its time
  local name=$1 seconds=$2
  shift 2
  echo "$name: at most $seconds s"
  rm -f "$folder/$name.json"
  timeout --kill-after=5 "$seconds" "$python" -u -m "bench.gpu.$name" --out "$folder" "$@" > "$folder/$name.log" 2>&1
  local code=$?
  [ $code -eq 0 ] || { echo "$name: status $code (124: out of time), see $folder/$name.log" && status=1; }
}
part right 150 "$@"
part kernel 30 "$@"
part loading 100 "$@"
part chapter 70 "$@"
part training 120 "$@"
"$python" -m bench.gpu.table --out "$folder" || status=1
exit $status

#!/usr/bin/env bash
# Proves the GPU path right and measures it, in at most 8 minutes, and prints a short table last:
#
#     FASTPETS_PETS=... bash bench/gpu.sh [FOLDER] [--device cpu]
#
# FOLDER (gpu-report) gets a JSON file and the output of each part. With `--device cpu` it is a rehearsal: all of it runs,
# at a small scale, so that it is known to run, and no figure means anything. PYTHON names another interpreter, PARTS some
# of the parts.
# Status 0: every part came to its end and all tests passed.
set -uo pipefail
folder=gpu-report
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then folder=$1; shift; fi
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

declare -A limits=([right]=150 [kernel]=30 [loading]=100 [chapter]=70 [training]=125) # seconds
status=0
for part in ${PARTS:-right kernel loading chapter training}; do
  echo "$part: at most ${limits[$part]} s"
  rm -f "$folder/$part.json"
  timeout --kill-after=5 "${limits[$part]}" "$python" -u -m "bench.gpu.$part" --out "$folder" \
    --seconds "${limits[$part]}" "$@" > "$folder/$part.log" 2>&1
  code=$?
  [ $code -eq 0 ] || { echo "$part: status $code (124: out of time), see $folder/$part.log" && status=1; }
done
"$python" -m bench.gpu.table --out "$folder" || status=1
exit $status

#!/usr/bin/env bash
# Tests and measures the GPU path in at most 8 minutes, and prints a summary at the end:
#
#     FASTPETS_PETS=... bash bench/gpu.sh [FOLDER] [--device cpu]
#
# Writes a JSON file and a log of each part to FOLDER, by default gpu-report. With `--device cpu` it is a dry run at a
# small scale: it shows that the scripts run, and its figures mean nothing. PYTHON names another interpreter, PARTS a
# selection of parts. Exits with status 0 if all parts completed and all tests passed.
set -uo pipefail
folder=gpu-report
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then folder=$1; shift; fi
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

declare -A limits=([correctness]=150 [kernel]=30 [loading]=100 [chapter]=70 [training]=125) # seconds
status=0
for part in ${PARTS:-correctness kernel loading chapter training}; do
  echo "$part: at most ${limits[$part]} s"
  rm -f "$folder/$part.json"
  timeout --kill-after=5 "${limits[$part]}" "$python" -u -m "bench.gpu.$part" --out "$folder" \
    --seconds "${limits[$part]}" "$@" > "$folder/$part.log" 2>&1
  code=$?
  [ $code -eq 0 ] || { echo "$part: status $code (124: out of time), see $folder/$part.log" && status=1; }
done
"$python" -m bench.gpu.table --out "$folder" || status=1
exit $status

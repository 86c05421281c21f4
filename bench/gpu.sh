#!/usr/bin/env bash
# Tests and measures the GPU path in at most ten minutes, and prints each part's results when it ends:
#
#     FASTPETS_PETS=... bash bench/gpu.sh [FOLDER] [--device cpu]
#
# The most important comes first: what the machine is, then the figures, then the tests, each file in a process of its
# own, and at last what may hang. FOLDER, by default gpu-report, has of each part the results as a table (.txt) and with
# all figures (.jsonl), both written as they arrive, and a log. With `--device cpu` it is a dry run at a small scale: it
# shows that the scripts run, and its figures mean nothing. PYTHON names another interpreter, PARTS a selection of
# parts. Exits with status 0 if all parts completed and all tests passed.
set -uo pipefail
folder=gpu-report
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then folder=$1; shift; fi
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

parts="preflight loading training chapter kernel tests/kernels/test_warp_triton.py
  tests/kernels/test_luts_triton.py tests/kernels/test_shrink_triton.py tests/loading/test_gpu.py
  tests/loading/test_gpu_files.py tests/training/test_gpu.py tests/training/test_distributed.py sweep
  tests/loading/test_gpu_streams.py"
declare -A limits=([preflight]=40 [loading]=70 [training]=80 [chapter]=80 [kernel]=30 [sweep]=40
  [tests/loading/test_gpu_streams.py]=60) # seconds
case " $* " in *" cpu "*) scale=10 ;; *) scale=1 ;; esac # a CPU takes longer
status=0 pid=
trap '[ -z "$pid" ] || kill -KILL -- "-$pid" 2> /dev/null; exit 130' INT TERM
for part in ${PARTS:-$parts}; do
  limit=$((scale * ${limits[$part]:-40}))
  name=${part//\//-} module=$part file=()
  case $part in *.py) name=${name%.py} module=correctness file=("$part") ;; esac
  echo "$name: at most $limit s"
  rm -f "$folder/$name".{txt,jsonl,log}
  timeout --kill-after=5 "$limit" "$python" -u -m "bench.gpu.$module" --out "$folder" --name="$name" \
    --seconds "$limit" "$@" "${file[@]}" > "$folder/$name.log" 2>&1 &
  pid=$!
  wait "$pid" 2> /dev/null
  code=$?
  kill -KILL -- "-$pid" 2> /dev/null # timeout made it a process group: what a crashed part left running
  cat "$folder/$name.txt" 2> /dev/null
  case $code in 0) continue ;; 124) how="out of time" ;; 12[89] | 1[3-9]?) how="killed by signal $((code - 128))" ;;
    *) how="status $code" ;; esac
  status=1
  echo "$name: $how, see $folder/$name.log: $(tail -n 1 "$folder/$name.log")" | tee -a "$folder/$name.txt"
done
[ $scale -eq 1 ] || echo "A dry run on a CPU, at a small scale: its figures mean nothing."
exit $status

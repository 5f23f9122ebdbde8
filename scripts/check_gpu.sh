#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can judge, within nine minutes and without a network:
#
#     scripts/check_gpu.sh OUTDIR [WHEELS]
#
# Builds with this machine's own torch and nvcc into a temporary folder, runs the CUDA tests, compute-sanitizer over some of the kernels'
# tests and the benchmarks, and writes into OUTDIR: log, summary.json, results/<device>/*.json, benchmarks.md and its pictures. The last part,
# bars, says which of the project's bars are met. WHEELS is a folder of wheels for what is missing here, such as shap, captum and
# tangermeme; whoever is not installed gets a row that says so. Times are with TF32, which users have by torch's default.
# Exit status: 0 where everything passed on a GPU; 1 otherwise. Without a GPU what can run on a CPU runs, in small.
set -uo pipefail

(($# == 1 || $# == 2)) || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
wheels=${2:+$(cd "$2" && pwd)}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$work/site PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLBACKEND=Agg
exec > >(tee "$out/log") 2>&1
no_gpu=0
deadline=$((SECONDS + ${CHECK_SECONDS:-535}))
: >"$work/parts"

# judge NAME SECONDS COMMAND...: runs the command for at most so long and notes its exit status. It runs in a folder without a package, so that
# Python imports the one that was built.
judge() {
  local name=$1 limit=$2 left=$((deadline - SECONDS)) began=$SECONDS status
  shift 2
  echo
  echo "=== $name"
  if ((left < 5)); then
    status=124
    echo "no time left"
  else
    (cd "$work" && timeout -k 5 $((limit < left ? limit : left)) "$@")
    status=$?
  fi
  echo "=== $name: exit status $status after $((SECONDS - began)) s"
  printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - began)) >>"$work/parts"
}

# beside NAME SECONDS COMMAND...: judges in the background, for commands whose times do not matter; `finish` waits for all of them and prints
# what they wrote.
started=() pids=()
beside() {
  judge "$@" >"$work/$1.said" 2>&1 &
  started+=("$1") pids+=($!)
}

finish() {
  wait "${pids[@]}"
  for name in "${started[@]}"; do cat "$work/$name.said"; done
  started=() pids=()
}

skipped() {
  echo
  echo "=== $1: skipped, $2"
  printf '%s\tskipped: %s\t0\n' "$1" "$2" >>"$work/parts"
}

capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else "")')
if [[ -n $capability ]]; then
  device=cuda size=(--full)
  name=$("$python" -c 'import re, torch; print(re.sub("[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()))')
  export DEEPSHAP_CUDA=ON DEEPSHAP_CUDA_ARCHITECTURES="${DEEPSHAP_CUDA_ARCHITECTURES:-$capability-real}"
  nvidia-smi
else
  echo "NO GPU WAS FOUND: this run judges nothing but the script itself"
  device=cpu size=() name=cpu no_gpu=1
fi
results=$out/results/$name
benchmark() { "$python" "$root/benchmarks/$1.py" --device "$device" --results "$results" "${@:2}"; }
export -f benchmark
export python root device results

# The build works on a copy: this checkout stays as it is.
judge build 900 bash -c 'mkdir source && tar -C "$0" --exclude=./.git --exclude=./build --exclude=./.venv --exclude="*.so" -cf - . | tar -C source -xf - &&
  "$1" -m pip install -q --no-index --no-deps --no-build-isolation --target site ./source' "$root" "$python"
if [[ -n $wheels ]]; then
  judge wheels 60 bash -c '"$1" -m pip install -q --no-index --no-deps --target site --upgrade "$0"/*.whl' "$wheels" "$python"
else
  skipped wheels "none were given"
fi
judge build_info 30 "$python" -c 'import deepshap_ext, pprint; print(deepshap_ext.__file__); pprint.pprint(deepshap_ext.build_info())'

# pytest-benchmark, where it is installed, warns beside pytest-xdist; a warning is an error here.
pytest=("$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider -p no:benchmark -q)
"$python" -c 'import xdist' 2>/dev/null && parallel=(-n 6) || parallel=()
networks=(resnet50 bpnet chrombpnet vit resnet18 bert mlp digits)
[[ $device == cuda ]] || networks=(resnet18 bert)
ours=(--precision tf32 --max-memory 4096)

# Tests run at once, since their times do not matter. Beside them torch compiles the graphs that `peers` measures later, and keeps them in this
# cache: --max-memory makes the chunks, and so the graphs, the same there.
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TORCHINDUCTOR_FX_GRAPH_CACHE=1
if [[ $device == cuda ]]; then
  beside tests 170 "${pytest[@]}" "${parallel[@]}" -k cuda "$root"/tests/{test_cuda.py,ops,rules/test_linear.py}
  beside tests_on_device 170 "${pytest[@]}" --device cuda "$root"/tests/test_{replay,layers,options}.py
else
  beside tests 170 "${pytest[@]}" "$root"/tests/test_cuda.py "$root"/tests/ops/test_product.py
fi
for tool in memcheck racecheck; do
  if [[ $device != cuda ]]; then
    skipped $tool "there is no GPU"
  elif ! command -v compute-sanitizer >/dev/null; then
    skipped $tool "compute-sanitizer is not installed"
  else
    # Without torch's caching, so that what lies beyond a tensor is not its neighbour.
    beside $tool 170 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool --target-processes all --error-exitcode 9 \
      "${pytest[@]}" -k "cuda and float32 and oracle and (vectors or per_sample)" "$root/tests/ops"
  fi
done
for network in "${networks[@]}"; do
  beside "compile_$network" 170 "$python" "$root/benchmarks/peers.py" "$network" --device "$device" "${size[@]}" "${ours[@]}" \
    --explainers "deepshap_ext, compile=True" --repeats 1 --seconds 0
done
finish

judge kernels 110 bash -c 'benchmark kernels --repeats 3 '"$([[ $device == cuda ]] || echo --small)"
judge peers 130 bash -c 'benchmark peers "$@"' _ "${networks[@]}" "${size[@]}" "${ours[@]}" --compile --repeats 3 --seconds 3
judge floor 70 bash -c 'benchmark floor "$@"' _ "${networks[@]}" lstm gru "${size[@]}" --precision tf32 --repeats 3 --seconds 3
judge replay 20 bash -c 'benchmark replay small'
judge precision 25 bash -c 'benchmark precision mlp resnet18 bpnet'
judge transposed 30 "$python" "$root/benchmarks/transposed.py" --device "$device" --precision tf32 --repeats 3
judge startup 20 bash -c 'benchmark startup --repeats 2'
deadline=$((deadline + 15)) # so that the page is written even when time is up
judge report 15 "$python" "$root/benchmarks/report.py" --results "$out/results" --page "$out/benchmarks.md"
judge bars 15 "$python" "$root/benchmarks/bars.py" --results "$results"

PARTS=$work/parts "$python" - "$out/summary.json" "$device" "$no_gpu" <<'PY'
import json, os, pathlib, sys

lines = pathlib.Path(os.environ["PARTS"]).read_text().splitlines()
parts = [dict(zip(("part", "status", "seconds"), line.split("\t"), strict=True)) for line in lines]
passed = sys.argv[3] == "0" and all(part["status"] == "0" or part["status"].startswith("skipped") for part in parts)
summary = {"device": sys.argv[2], "passed": passed, "parts": parts}
pathlib.Path(sys.argv[1]).write_text(json.dumps(summary, indent=1) + "\n")
print(json.dumps(summary, indent=1))
sys.exit(not passed)
PY

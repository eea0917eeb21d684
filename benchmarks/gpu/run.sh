#!/usr/bin/env bash
# Everything that wants a real GPU, in one go of less than 9 minutes: build, tests, memory checker,
# timings beside PyTorch and JAX.
#
#   benchmarks/gpu/run.sh OUTPUT_FOLDER [DEVICE] [SECONDS]
#
# OUTPUT_FOLDER (default gpu-results) gets a log of every part, the measurements as JSON and text, and two
# files for who can fetch only a few: summary.txt, with all tables and how each part went, and results.tgz,
# with everything. They are there however the script ends, by Ctrl-C and SIGTERM too, and without tables
# after every part. DEVICE: cuda:0 (default) or hip:0, ...; SECONDS: when the last part must end (default 515).
#
# Works without network: it takes Python's packages (numpy, safetensors, tqdm, scikit-build-core, pybind11,
# pytest, hypothesis; torch and jax for the comparison) from the interpreter that $PYTHON names, python3
# if none, and the compiler from the path or where vendors install theirs.
#
# Without a build, or where it finds no such device, nothing else makes sense and the script ends. Any other
# part that fails or runs out of its time is reported and does not keep the others from running; one that
# may need more time than is left is skipped. What matters most comes first. Status 1 if a part failed.
set -euo pipefail
out=$(realpath -m "${1:-gpu-results}") device=${2:-cuda:0} limit=${3:-515}
grace=10 # seconds to write down what there is, once interrupted
cd "$(dirname "$0")/../.."
mkdir -p "$out"
work=$(mktemp -d)
: >"$work/parts"
: >"$work/tables"
child='' name='' told='' failed=0

# -- what is left behind ---------------------------------------------------------------------------

keep() { # bring summary.txt and results.tgz up to date
  printf '%-20s %8s  %s\n' part seconds outcome | cat "$work/tables" - "$work/parts" >"$out/summary.txt"
  tar -czf "$work/results.tgz" -C "$out" --exclude=./results.tgz . || true # a file that still grows
  mv "$work/results.tgz" "$out/results.tgz"
}
finish() {
  local code=$?
  trap - EXIT INT TERM
  set +e # go as far as it goes
  python -m benchmarks.gpu.summary "$out" >"$work/tables" 2>&1
  echo >>"$work/tables"
  keep
  echo
  cat "$out/summary.txt"
  rm -rf "$work"
  exit "$code"
}
stop() { # stop STATUS: end the part that runs, and the script
  if [ -n "$child" ]; then
    kill -INT "$child" 2>/dev/null || true
    wait "$child" || true
    report interrupted
  fi
  exit "$1"
}
trap finish EXIT
trap 'stop 130' INT
trap 'stop 143' TERM

# -- parts -----------------------------------------------------------------------------------------

report() { # report OUTCOME: of the part that has the name
  told=$1
  printf '%-20s %8s  %s\n' "$name" "$((SECONDS - start))" "$1" >>"$work/parts"
  tail -n 1 "$work/parts"
}
refusal() { # why compute-sanitizer does not work here, if that is what its log says
  ! grep -qE '^=+ .*(Invalid __|Misaligned|Race reported|hazard|Uninitialized|Barrier error)' "$1" &&
    grep -m 1 -E '^=+ .*(not supported|Internal Sanitizer Error|[Ff]ailed to|[Pp]ermi|debugger)' "$1"
}
outcome() { # outcome STATUS SECONDS: in words
  local log=$out/$name.log said why
  said=$(grep -v '^ *$' "$log" | tail -n 1 | cut -c -110 || true)
  if [ "$1" -eq 0 ]; then
    echo "ok: $said"
  elif [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; then
    echo "TIME OUT after $2 s: $said"
  elif [[ $name == sanitizer_* ]] && why=$(refusal "$log"); then
    echo "not available: ${why##*= }"
  else
    echo "FAILED ($1): $said"
  fi
}
part() { # part NAME SECONDS COMMAND...: run, keep the log, say how it went
  local seconds=$2 left=$((limit - SECONDS)) code=0
  name=$1 start=$SECONDS
  shift 2
  if [ "$seconds" -gt "$left" ]; then
    report "skipped: it may take $seconds s, $left s are left"
    return
  fi
  # interrupted, pytest and the benchmarks still say what they know; the shell would have them ignore it
  env --default-signal=INT timeout --signal=INT --kill-after="$grace" "$seconds" "$@" >"$out/$name.log" 2>&1 </dev/null &
  child=$!
  wait "$child" || code=$?
  child=''
  report "$(outcome "$code" "$seconds")"
  case $told in
    FAILED* | TIME*)
      failed=1
      tail -n 25 "$out/$name.log"
      ;;
  esac
  keep
}
essential() { # essential NAME SECONDS COMMAND...: a part without which the others make no sense
  part "$@"
  [[ $told == ok:* ]] || exit 1
}

# -- tools -----------------------------------------------------------------------------------------

interpreter=$(command -v "${PYTHON:-python3}")
PATH="$PATH:$(dirname "$interpreter"):/usr/local/cuda/bin:/opt/rocm/bin"
# for this chip alone; for all that we name where it does not say which it is
if [ "${device%%:*}" = cuda ]; then
  chip=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p | tr -cd 0-9 || true)
  backend="-DMARKETPLACE_CUDA=ON -DMARKETPLACE_HIP=OFF ${chip:+-DMARKETPLACE_CUDA_ARCHITECTURES=$chip}"
  { nvidia-smi; nvcc --version; } >"$out/machine.log" 2>&1 || true
else
  chip=$(rocminfo 2>/dev/null | grep -om 1 'gfx[0-9a-f]*' || true)
  backend="-DMARKETPLACE_CUDA=OFF -DMARKETPLACE_HIP=ON ${chip:+-DMARKETPLACE_HIP_ARCHITECTURES=$chip}"
  { rocm-smi; hipcc --version; } >"$out/machine.log" 2>&1 || true
fi
# without a pip of its own, which not every Python has at hand: the interpreter's will do
"$interpreter" -m venv --system-site-packages --without-pip "$work/venv"
# a virtual environment of one that is itself virtual would not see its packages
"$interpreter" -c 'import site; print("\n".join(site.getsitepackages()))' \
  >"$(echo "$work"/venv/lib/python3*/site-packages)/outer.pth"
export PATH="$work/venv/bin:$PATH" PYTHONUNBUFFERED=1 CMAKE_ARGS="$backend"
export XLA_PYTHON_CLIENT_PREALLOCATE=false # or JAX takes three quarters of the memory for itself
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1    # others' plugins warn, and our tests take warnings for errors

# newer Pythons and libraries than ours deprecate things, which says nothing of this device
pytest=(python -m pytest -q -p no:cacheprovider -o faulthandler_timeout=60
  -W default::DeprecationWarning -W default::PendingDeprecationWarning)
workers=()
if python -c 'import xdist' 2>/dev/null; then workers=(-p xdist.plugin -n 8); fi
for_gpus=(tests/test_gpu.py tests/test_gpu_node.py tests/test_fused_step.py tests/test_interop_guide.py)

step_cost() { # step_cost NAME DTYPE
  part "$1" 30 python -m benchmarks.step_cost --device "$device" --case tree-16 --dtype "$2" --json "$out/$1.json"
}
peers() { # peers NAME SECONDS CASES CONTENDERS: beside ours, in one process, so that ratios are of one run
  part "$1" "$2" python -m benchmarks.peers --device "$device" --dtype bfloat16 --cases "$3" --contenders "ours,$4" \
    --json "$out/$1.json"
}
example() { # example NAME ARGUMENTS...: what is learned, and seconds a step
  part "$1" 25 python -m marketplace.examples.mnist --data bundled --device "$device" --quiet --json "$out/$1.json" "${@:2}"
}
sanitizer() { # sanitizer TOOL SECONDS
  name=sanitizer_$1 start=$SECONDS
  if ! command -v compute-sanitizer >/dev/null; then
    report "not available: no compute-sanitizer on the path"
    return
  fi
  part "$name" "$2" compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    "${pytest[@]}" tests/test_gpu.py -k "a_run_like_the_cpu or the_same_run_twice"
}

# -- what is done ----------------------------------------------------------------------------------

left=$((limit - SECONDS))
essential build $((left < 240 ? left : 240)) python -m pip install --no-build-isolation --no-deps --no-index .
essential info 20 python -m marketplace info
if ! grep -q "\"$device\"" "$out/info.log"; then
  report "FAILED: no $device"
  exit 1
fi
part tests_gpu 60 "${pytest[@]}" "${workers[@]}" "${for_gpus[@]}"
step_cost step_cost_bf16 bfloat16
peers peers_tree16 50 tree-16 torch-loop,torch-loop-nhwc,torch-grouped
# the default run, node perturbation; below, the same by deltas
example example_node --steps 500
sanitizer memcheck 60
part tests 120 "${pytest[@]}" "${workers[@]}" -m "not slow" "${for_gpus[@]/#/--ignore=}" tests
peers peers_cases 45 mlp,star-512,resnet torch-loop,torch-grouped
step_cost step_cost_f32 float32
example example_star --plan star --steps 200
# those that compile or try for long: each has only its own time to lose
peers peers_compile 60 tree-16 torch-compile
peers peers_vmap 45 tree-16 torch-grouped-nhwc,torch-vmap
peers peers_jax_vmap 60 tree-16 jax-vmap
peers peers_jax_loop 60 tree-16 jax-loop
sanitizer racecheck 60
exit "$failed"

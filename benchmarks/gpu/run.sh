#!/usr/bin/env bash
# Everything that wants a real GPU, in one go of less than 9 minutes: build, tests, memory checker,
# timings beside PyTorch and JAX.
#
#   benchmarks/gpu/run.sh [OUT] [DEVICE]      OUT: a folder for logs and results (default gpu-results);
#                                             DEVICE: cuda:0 (default) or hip:0, ...
#
# Works without network: it takes Python's packages (numpy, safetensors, tqdm, scikit-build-core, pybind11,
# pytest, hypothesis; torch and jax for the comparison) from the interpreter that $PYTHON names, python3
# if none, and the compiler from the path or where vendors install theirs. A part that fails or runs out of
# time is reported and does not keep the others from running.
set -uo pipefail
limit=530 # seconds for everything
out=$(realpath -m "${1:-gpu-results}") device=${2:-cuda:0}
kind=${device%%:*}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

part() { # part NAME SECONDS COMMAND...: run, keep the log, say how it went
  local name=$1 seconds=$2 start=$SECONDS left=$((limit - SECONDS)) status
  shift 2
  if [ "$left" -lt 5 ]; then
    echo "== $name: no time left"
    failed+=("$name: no time left")
    return
  fi
  [ "$seconds" -le "$left" ] || seconds=$left
  # interrupted, pytest still says what failed before
  timeout --signal=INT --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1 && status=ok || status="FAILED ($?)"
  [ "$status" = ok ] || failed+=("$name")
  echo "== $name: $status, $((SECONDS - start)) s"
  tail -n 25 "$out/$name.log"
}

export PATH="$PATH:/usr/local/cuda/bin:/opt/rocm/bin"
# for this chip alone; for all that we name where it does not say which it is
if [ "$kind" = cuda ]; then
  chip=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sed -n 1p | tr -cd 0-9)
  backend="-DMARKETPLACE_CUDA=ON -DMARKETPLACE_HIP=OFF ${chip:+-DMARKETPLACE_CUDA_ARCHITECTURES=$chip}"
  { nvidia-smi; nvcc --version; } >"$out/machine.log" 2>&1
else
  chip=$(rocminfo | grep -om 1 'gfx[0-9a-f]*')
  backend="-DMARKETPLACE_CUDA=OFF -DMARKETPLACE_HIP=ON ${chip:+-DMARKETPLACE_HIP_ARCHITECTURES=$chip}"
  { rocm-smi; hipcc --version; } >"$out/machine.log" 2>&1
fi
# without a pip of its own, which not every Python has at hand: the interpreter's will do
"${PYTHON:-python3}" -m venv --system-site-packages --without-pip "$work/venv"
# a virtual environment of one that is itself virtual would not see its packages
"${PYTHON:-python3}" -c 'import site; print("\n".join(site.getsitepackages()))' \
  >"$(echo "$work"/venv/lib/python3*/site-packages)/outer.pth"
export PATH="$work/venv/bin:$PATH" PYTHONUNBUFFERED=1 CMAKE_ARGS="$backend"
export XLA_PYTHON_CLIENT_PREALLOCATE=false # or JAX takes three quarters of the memory for itself

part build 120 python -m pip install --no-build-isolation --no-deps --no-index .
part info 20 python -m marketplace info
grep -q "$device" "$out/info.log" || failed+=("info: no $device")

# "auto" is this device: what the tests do not ask for by name runs on it
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # others' plugins warn, and our tests take warnings for errors
workers=$(python -c 'import xdist; print("-p xdist.plugin -n 8")' 2>/dev/null)
pytest=(python -m pytest -q -p no:cacheprovider -o faulthandler_timeout=60)
part tests_gpu 60 "${pytest[@]}" $workers tests/test_gpu.py tests/test_gpu_node.py tests/test_fused_step.py \
  tests/test_interop_guide.py
part tests 150 "${pytest[@]}" -m "not slow" $workers tests
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    part "sanitizer_$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      "${pytest[@]}" tests/test_gpu.py -k a_run_like_the_cpu
  done
fi

peers() { # peers NAME SECONDS ARGUMENTS...
  local name=$1 seconds=$2
  shift 2
  part "$name" "$seconds" python -m benchmarks.peers --device "$device" --json "$out/$name.json" "$@"
}
part step_cost_bf16 20 python -m benchmarks.step_cost --device "$device" --case tree-16 --dtype bfloat16 \
  --json "$out/step_cost_bf16.json"
part step_cost_f32 20 python -m benchmarks.step_cost --device "$device" --case tree-16 --json "$out/step_cost_f32.json"
# the default run, node perturbation, and the same by deltas: what they learn, and seconds a step
part example_node 40 python -m marketplace.examples.mnist --data bundled --device "$device" --quiet \
  --json "$out/example_node.jsonl"
part example_star 40 python -m marketplace.examples.mnist --data bundled --device "$device" --plan star --quiet \
  --json "$out/example_star.jsonl"
peers peers_tree16 90 --cases tree-16 --contenders ours,torch,torch-compile,jax --dtype bfloat16
peers peers_all 50 --contenders ours,torch-grouped,torch-grouped-nhwc,torch-vmap,jax-vmap

echo
if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
echo "all parts went well; results in $out"

#!/usr/bin/env bash
# Everything that wants a real GPU, in one go of less than 9 minutes: build, tests, memory checker,
# timings beside PyTorch and JAX.
#
#   benchmarks/gpu/run.sh [OUT] [DEVICE]      OUT: a folder for logs and results (default gpu-results);
#                                             DEVICE: cuda:0 (default) or hip:0, ...
#
# Works without network: it takes Python's packages (numpy, safetensors, tqdm, scikit-build-core, pybind11,
# pytest, hypothesis; torch and jax for the comparison) from the interpreter that $PYTHON names, python3
# if none. A part that fails or runs out of time is reported and does not keep the others from running.
set -uo pipefail
out=$(realpath -m "${1:-gpu-results}") device=${2:-cuda:0}
kind=${device%%:*}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

part() { # part NAME SECONDS COMMAND...: run, keep the log, say how it went
  local name=$1 seconds=$2 start=$SECONDS status
  shift 2
  timeout --kill-after=5 "$seconds" "$@" >"$out/$name.log" 2>&1 && status=ok || status="FAILED ($?)"
  [ "$status" = ok ] || failed+=("$name")
  echo "== $name: $status, $((SECONDS - start)) s"
  tail -n 25 "$out/$name.log"
}

if [ "$kind" = cuda ]; then
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
  backend="-DMARKETPLACE_CUDA=ON -DMARKETPLACE_HIP=OFF -DMARKETPLACE_CUDA_ARCHITECTURES=$capability"
  nvidia-smi >"$out/machine.log"
else
  chip=$(rocminfo | grep -om 1 'gfx[0-9a-f]*')
  backend="-DMARKETPLACE_CUDA=OFF -DMARKETPLACE_HIP=ON -DMARKETPLACE_HIP_ARCHITECTURES=$chip"
  rocm-smi >"$out/machine.log"
fi
"${PYTHON:-python3}" -m venv --system-site-packages "$work/venv"
# a virtual environment of one that is itself virtual would not see its packages
"${PYTHON:-python3}" -c 'import site; print("\n".join(site.getsitepackages()))' \
  >"$(echo "$work"/venv/lib/python3*/site-packages)/outer.pth"
export PATH="$work/venv/bin:$PATH" PYTHONUNBUFFERED=1 CMAKE_ARGS="$backend"

part build 120 pip install --no-build-isolation --no-deps --no-index .
part info 10 python -m marketplace info
grep -q "$device" "$out/info.log" || failed+=("info: no $device")

# "auto" is this device: what the tests do not ask for by name runs on it
workers=$(python -c 'import xdist; print("-n 8")' 2>/dev/null)
part tests 150 python -m pytest -q -p no:cacheprovider -m "not slow" $workers tests
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    part "sanitizer_$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      python -m pytest -q -p no:cacheprovider tests/test_gpu.py -k a_run_like_the_cpu
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

"""The script for a machine with a GPU, dry: its tools are stand-ins that say what they run."""

import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu" / "run.sh"
PARTS = [
    "build", "info", "tests_gpu", "step_cost_bf16", "peers_tree16", "example_node",
    "sanitizer_memcheck", "tests", "peers_cases", "step_cost_f32", "example_star", "peers_compile",
    "peers_vmap", "peers_jax_vmap", "peers_jax_loop", "sanitizer_racecheck",
]  # fmt: skip

PYTHON = """#!/usr/bin/env bash
case "$*" in
  "-m venv"*)
    mkdir -p "${@: -1}"/{bin,lib/python3.12/site-packages}
    cp "$0" "${@: -1}/bin/python"
    ;;
  "-c "*) ;;
  *"pip install"*) echo "error: $STUB_BUILD"; exit "$STUB_BUILD" ;;
  *"marketplace info"*) echo "\\"name\\": \\"$STUB_DEVICE\\"" ;;
  *gpu.summary*) exec "$STUB_PYTHON" "$@" ;;
  *"--contenders ours,torch-compile"*) echo compiling; sleep "$STUB_COMPILE" ;;
  *) echo "ran $*" ;;
esac
"""
SANITIZER = """#!/usr/bin/env bash
case "$2" in
  memcheck) echo '========= Error: Device not supported. Please refer to the manual'; exit 9 ;;
  racecheck) echo '========= Error: Race reported between Write access'; exit "$STUB_RACE" ;;
esac
"""


@pytest.fixture
def start(tmp_path):
    """Start the script with stand-ins, which the environment tells what to do."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {
        "python3": PYTHON,
        "compute-sanitizer": SANITIZER,
        "nvidia-smi": "#!/bin/sh\necho 9.0\n",
        "nvcc": "#!/bin/sh\n",
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    given = {
        "PATH": f"{tools}:/usr/bin:/bin", "STUB_PYTHON": sys.executable,
        "STUB_BUILD": "0", "STUB_DEVICE": "cuda:0", "STUB_COMPILE": "0", "STUB_RACE": "0",
    }  # fmt: skip

    def start(*arguments, script=SCRIPT, **told):
        ours = ("PYTHON", "LD_PRELOAD")  # sanitizers have nothing to see in a shell
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        command = [script, tmp_path / "out", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment | given | told, **pipes)

    start.out = tmp_path / "out"
    return start


def outcomes(out):
    """Give how each part went, in order, by the summary; and check that the archive has all."""
    summary = (out / "summary.txt").read_text()
    lines = summary.partition(f"{'part':<20} {'seconds':>8}  outcome\n")[2].splitlines()
    with tarfile.open(out / "results.tgz") as archive:
        packed = set(archive.getnames())
    assert {f"./{path.name}" for path in out.iterdir()} - packed == {"./results.tgz"}
    return {line.split()[0]: line[31:] for line in lines}


def test_every_part_is_told(start):
    ended = start()
    printed, _ = ended.communicate(timeout=60)
    told = outcomes(start.out)
    assert ended.returncode == 0, printed
    assert list(told) == PARTS
    assert told.pop("sanitizer_memcheck") == (
        "not available: Error: Device not supported. Please refer to the manual"
    )
    assert all(outcome.startswith("ok: ") for outcome in told.values()), told
    assert printed.endswith((start.out / "summary.txt").read_text())
    assert "--ignore=tests/test_gpu.py" in (start.out / "tests.log").read_text()


def test_a_race_is_no_missing_tool(start):
    ended = start(STUB_RACE="9")
    ended.communicate(timeout=60)
    assert ended.returncode == 1
    told = outcomes(start.out)["sanitizer_racecheck"]
    assert told == "FAILED (9): ========= Error: Race reported between Write access"


def test_without_a_build_nothing_else_is_tried(start):
    ended = start(STUB_BUILD="3")
    printed, _ = ended.communicate(timeout=60)
    assert ended.returncode == 1
    assert outcomes(start.out) == {"build": "FAILED (3): error: 3"}
    assert "\nerror: 3\n" in printed


def test_without_the_device_nothing_else_is_tried(start):
    ended = start(STUB_DEVICE="cpu")
    ended.communicate(timeout=60)
    assert ended.returncode == 1
    assert outcomes(start.out)["info"] == "FAILED: no cuda:0"


def test_what_does_not_fit_is_skipped(start):
    ended = start("cuda:0", "50")
    ended.communicate(timeout=60)
    told = outcomes(start.out)
    assert ended.returncode == 0 and list(told) == PARTS
    assert told["tests"].startswith("skipped: it may take 120 s, ")
    assert told["step_cost_bf16"].startswith("ok: ")


def test_a_part_has_its_own_time(start, tmp_path):
    script = tmp_path / "checkout" / "benchmarks" / "gpu" / "run.sh"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT.read_text().replace("peers_compile 60", "peers_compile 1"))
    script.chmod(0o755)
    ended = start(script=script, STUB_COMPILE="60")
    ended.communicate(timeout=60)
    told = outcomes(start.out)
    assert ended.returncode == 1 and list(told) == PARTS
    assert told["peers_compile"] == "TIME OUT after 1 s: compiling"
    assert told["peers_vmap"].startswith("ok: ")


def test_terminated_it_leaves_what_there_is(start):
    ended = start(STUB_COMPILE="60")
    log = start.out / "peers_compile.log"
    for _ in range(300):
        if log.exists() and "compiling" in log.read_text():
            break
        time.sleep(0.1)
    ended.send_signal(signal.SIGTERM)
    ended.communicate(timeout=30)
    assert ended.returncode == 143
    told = outcomes(start.out)
    assert list(told) == PARTS[: PARTS.index("peers_compile") + 1]
    assert told["peers_compile"] == "interrupted"


# -- the tables ------------------------------------------------------------------------------------


def test_the_tables_of_a_folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import harness, peers, step_cost
    from benchmarks.gpu import summary

    monkeypatch.setattr(harness, "limit_threads", lambda threads: None)
    monkeypatch.setattr(harness, "import_times_ms", lambda *_: {"median_ms": 1.0})
    quick = ["--quick", "--threads", "1", "--dtype", "bfloat16", "--json"]
    peers.main([*quick, str(tmp_path / "contest.json"), "--cases", "mlp", "--contenders", "ours"])
    step_cost.main([*quick, str(tmp_path / "cost.json"), "--case", "mlp"])
    (tmp_path / "example.json").write_text("{}")
    text = summary.text(tmp_path)
    assert text.startswith("mlp bfloat16, cpu, 1 threads\ntraining step ")
    assert "\n-- contest: our batch on the host; peak bfloat16 0." in text
    assert text.splitlines()[-1].startswith("mlp        ours                bfloat16 ")
    for path in tmp_path.glob("*.json"):
        path.unlink()
    assert summary.text(tmp_path) == ""

"""MPI ranks share probes: the bits of one process, and no hang whatever happens to a rank."""

import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import programs
import pytest
from marketplace import nn
from marketplace.distributed import mpi

PROGRAM = pathlib.Path(__file__).with_name("mpi_program.py")
MPIEXEC = shutil.which("mpiexec", path=str(pathlib.Path(sys.executable).parent))


def needs_mpi():
    pytest.importorskip("mpi4py", reason="the extra [mpi] is not installed")
    if MPIEXEC is None:
        pytest.skip("no mpiexec beside this Python")


pytestmark = pytest.mark.slow


def start(ranks, *arguments):
    """Run a job to its end, within a minute."""
    needs_mpi()
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def results(case, ranks=4):
    job = start(ranks, PROGRAM, case)
    assert job.returncode == 0, job.stderr
    rows = json.loads(job.stdout)
    assert len(rows) == ranks
    return rows


CASES = {
    "star": {},
    "tree": {"plan": "tree"},
    "batch_norm": {"norm": nn.BatchNorm},
    "line_search": {"meta_learning_rate": 0.1},
    "sampling": {"plan": "tree", "sampling": 2},
    "threads": {},  # every other rank has two
}


@pytest.mark.parametrize("case", CASES)
def test_four_ranks_give_the_bits_of_one_process(case):
    expected = programs.alone(**CASES[case])
    assert {crc for crc, *_ in results(case)} == {expected}


STEPS = {
    "replicas": functools.partial(programs.step, forward_pass=2, marketplace_replica=2),
    "v1": programs.keep_best,
}


@pytest.mark.parametrize("case", STEPS)
def test_other_kinds_of_steps(case):
    assert {crc for crc, *_ in results(case, 2)} == {programs.alone(step=STEPS[case])}


def test_a_probe_costs_at_most_eight_bytes_a_path_and_64():
    for _, sent, paths, _ in results("star", 3):
        assert sent <= 64 + 8 * paths


def test_a_slower_rank_gets_less():
    rows = results("slow", 3)
    assert {crc for crc, *_ in rows} == {programs.alone(vendors=(4, 200))}
    fast, slow, other = (share for *_, share in rows)
    assert slow < min(fast, other) / 2


@pytest.mark.skipif(not programs.gpus(), reason="no GPU here, real or emulated")
def test_a_gpu_beside_a_cpu_takes_the_same_steps():
    """Losses have the bits of who evaluated them, and all take their step from the same."""
    rows = results("devices", 2)  # weights are compared every five steps
    assert len({crc for crc, *_ in rows}) == 1


REFUSALS = {
    "market": r"expected market .+\"vendor_count\": 12.+, as in rank 0 \(\S+\), received "
    r".+: 11.+ in rank 1 \(\S+\)",
    "seed": r"expected seed 1, as in rank 0 \(\S+\), received 2 in rank 1 \(\S+\)",
    "version": r"expected version \S+, as in rank 0 \(\S+\), received 0\.0\.9 in rank 1",
    "weights": r"expected weights checksum \w+, as in rank 0 \(\S+\), received .+ in rank 1",
    "drift": r"expected step 5 and weights with checksum \w{8}, as in most ranks, received "
    r"step 5 and weights with checksum \w{8} from rank 1 \(\S+\)",
    "memory": r"expected losses from every rank, received MemoryError: cannot allocate 8 GiB "
    r"from rank 1 \(\S+\)",
    "hang": r"expected every rank within 4 s, received nothing from rank 1 \(\S+\)",
    "node": r"ValueError: mpi\.share: expected plan 'tree' or 'star'.+, received 'node'",
    "disk": r"OSError: no space left",
    "killed": r"KILLED BY SIGNAL: 9|EXIT CODE: 9|signal 9",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_rank_that_goes_astray_ends_the_job_with_its_name(case):
    job = start(3, PROGRAM, case)
    assert job.returncode != 0
    assert re.search(REFUSALS[case], job.stderr + job.stdout), job.stderr


def test_one_rank_alone_needs_no_mpiexec():
    needs_mpi()
    program = [sys.executable, PROGRAM, "star"]
    job = subprocess.run(program, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(job.stdout)[0][0] == programs.alone()


def test_without_mpi4py_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"mpi.share: expected mpi4py .+marketplace\[mpi\]"
    ):
        mpi.share(programs.make())

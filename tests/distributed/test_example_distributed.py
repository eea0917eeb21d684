"""``--distributed`` of the MNIST example: the same results, and what it refuses."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import time

import pytest
from marketplace import checkpoint
from marketplace.distributed import _ray_connect as connect
from marketplace.examples import _distributed, mnist
from test_mpi import start

TINY = "--vendors 2,3,4 --batch-size 4 --steps 4 --eval-every 2 --device cpu --plan star".split()
pytestmark = pytest.mark.usefixtures("small_data")


def trained(path):
    tensors, _ = checkpoint.read_file(path)
    return {name: value.tobytes() for name, value in tensors.items()}


@pytest.fixture
def expected(tmp_path):
    """The checkpoint of one process."""
    path = tmp_path / "one.safetensors"
    assert mnist.main([*TINY, "--threads", "1", "--checkpoint", str(path)]) == 0
    return trained(path)


@pytest.mark.slow
def test_mpi_trains_the_same_weights_and_one_rank_tells_of_it(expected, tmp_path):
    path, report = tmp_path / "mpi.safetensors", tmp_path / "mpi.json"
    words = ["-m", "marketplace.examples.mnist", *TINY, "--distributed", "mpi"]
    job = start(3, *words, "--checkpoint", path, "--json", report)
    assert job.returncode == 0, job.stderr
    assert trained(path) == expected
    assert job.stdout.count("test accuracy") == 1
    assert json.loads(report.read_text())["steps"] == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_trains_the_same_weights(expected, tmp_path):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    path = tmp_path / "ray.safetensors"
    words = [*TINY, "--distributed", "ray", "--workers", "2", "--checkpoint", str(path)]
    assert mnist.main(words) == 0
    assert trained(path) == expected


@contextlib.contextmanager
def head_node():
    """A Ray cluster that was started from a shell, its address, and who may join it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ray = pathlib.Path(sys.executable).with_name("ray")
    words = f"start --head --port {port} --num-cpus 2 --include-dashboard false --block".split()
    head = subprocess.Popen(
        [ray, *words], env=os.environ | token, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"127.0.0.1:{port}", token
    finally:
        head.terminate()
        head.wait(timeout=60)


def wait_for(address):
    end = time.monotonic() + 60
    while True:
        try:
            return connect.check_reachable(address)
        except ConnectionError:
            assert time.monotonic() < end
            time.sleep(0.5)


@pytest.mark.slow
def test_ray_on_a_cluster_that_is_there_trains_the_same_weights(expected, tmp_path):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    path = tmp_path / "ray.safetensors"
    words = [*TINY, "--distributed", "ray", "--workers", "2", "--checkpoint", str(path)]
    with head_node() as (address, token):
        wait_for(address)
        command = [sys.executable, "-m", "marketplace.examples.mnist", *words, "--address", address]
        job = subprocess.run(
            command, env=os.environ | token, capture_output=True, text=True, timeout=300
        )
    assert job.returncode == 0, job.stderr
    assert trained(path) == expected


@pytest.mark.slow
def test_an_error_of_the_ranks_ends_the_job(tmp_path):
    words = ["-m", "marketplace.examples.mnist", *TINY, "--distributed", "mpi"]
    job = start(2, *words, "--resume", tmp_path / "none.safetensors")
    assert job.returncode != 0
    assert "none.safetensors" in job.stderr


@pytest.mark.slow
def test_an_unreachable_ray_cluster_is_one_line(capsys):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    words = [*TINY, "--distributed", "ray", "--address", "127.0.0.1:1"]
    assert mnist.main(words) == 1
    pattern = r"error: RayCluster: expected a Ray cluster at 127\.0\.0\.1:1, received .+refused"
    assert re.search(pattern, capsys.readouterr().err)


def test_plan_star_is_the_default_of_many():
    assert mnist.parse(["--distributed", "mpi"]).structure.plan == "star"


def test_sigterm_stops_no_rank_between_two_steps():
    """Ranks that stop at different steps would wait for each other."""
    by_mpi = mnist.parse(["--distributed", "mpi"])
    by_ray = mnist.parse(["--distributed", "ray"])
    assert _distributed.stop_signals(by_mpi) == (signal.SIGINT,)
    assert _distributed.stop_signals(by_ray) == (signal.SIGINT, signal.SIGTERM)


REFUSED = {
    "--distributed mpi --plan node": "expected star or tree with --distributed, received node",
    "--workers 2": "expected --distributed ray, received None",
    "--distributed mpi --workers 2": "expected --distributed ray, received mpi",
    "--distributed mpi --address a:1": "expected --distributed ray, received mpi",
    "--distributed ray --only-classes 0,1 --exclude-missing-from-loss": "expected none with --dist",
    "--distributed tcp": "invalid choice",
}


@pytest.mark.parametrize("words", REFUSED)
def test_options_that_do_not_go_together(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        mnist.parse(words.split())
    assert REFUSED[words] in capsys.readouterr().err


def test_without_the_extras_their_names_are_told(monkeypatch, capsys):
    for engine, package in (("ray", "ray"), ("mpi", "mpi4py")):
        monkeypatch.setitem(sys.modules, package, None)
        assert mnist.main([*TINY, "--distributed", engine]) == 1
        assert f"marketplace[{engine}]" in capsys.readouterr().err

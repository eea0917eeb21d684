"""Which plan the MNIST example chooses, and what it says of the choice."""

import json
import re

import pytest
from marketplace.examples import mnist, resnet18
from marketplace.examples._markets import NODE_VENDORS

pytestmark = pytest.mark.usefixtures("small_data")

TINY = ["--steps", "0", "--batch-size", "2", "--threads", "1", "--device", "cpu"]


def run(*arguments):
    return mnist.main([*TINY, *arguments])


KEEPS_NODE = [
    "",
    "--vendors 1,1,1,65,1",
    "--vendors auto",
    "--market depth-1",
    "--market depth-3",
    "--market depth-3 --vendors 1,5,1",
    "--market depth-5",
    "--norm instance",
    "--shaping z",
    "--forward-pass 2 --marketplace-replica 2",
    "--dtype bfloat16",
    "--update momentum",
    "--only-classes 0,1",
]


@pytest.mark.parametrize("words", KEEPS_NODE)
def test_what_node_can_run_keeps_it(words):
    options = mnist.parse(words.split())
    assert options.structure.plan == "node" and options.lr_schedule == "cosine"
    assert options.reason_for("node") is None


REASONS = {
    "--norm batch": "star",
    "--algorithm v1": "star",
    "--shaping rank": "star",
    "--antithetic": "star",
    "--meta-lr 0.1": "star",
    "--distributed mpi": "star",
    "--upstream-sampling 0,0,0": "star",
    "--market pyramid-32": "tree",
    "--vendors 8,40,512": "star",
    "--vendors 8": "star",
}


@pytest.mark.parametrize("words", REASONS)
def test_what_node_cannot_run_is_the_reason(words):
    options = mnist.parse(words.split())
    assert options.structure.plan == REASONS[words] and options.lr_schedule == "exponential"
    assert options.reason_for(REASONS[words]) == words


def test_classes_left_out_of_the_loss_are_the_reason():
    options = mnist.parse("--only-classes 0,1 --exclude-missing-from-loss".split())
    assert options.structure.plan == "star"
    assert options.reason_for("star") == "--exclude-missing-from-loss"


@pytest.mark.parametrize("words", ["--norm batch", "--vendors 2,3,4"])
def test_a_plan_that_was_named_needs_no_reason(words):
    for plan in ("star", "tree"):
        assert mnist.parse([*words.split(), "--plan", plan]).reason_for(plan) is None


def test_the_reason_is_one_line(capsys):
    assert run("--norm", "batch", "--vendors", "2,3,4") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "plan star, because of --norm batch"
    assert lines[2].startswith("plan star, vendors 2,3,4, ")


@pytest.mark.parametrize("words", [[], ["--plan", "star", "--vendors", "2,3,4"]])
def test_no_reason_no_line(capsys, words):
    assert run(*words) == 0
    assert "because" not in capsys.readouterr().err


def test_quiet_says_no_reason(capsys):
    assert run("--norm", "batch", "--vendors", "2,3,4", "--quiet") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", ["", "--market depth-3", "--market depth-1", "--plan node"])
def test_what_is_printed_can_be_given_back(tmp_path, capsys, words):
    reports = []
    vendors = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        assert run(*words.split(), *vendors, "--json", str(path)) == 0
        printed = re.search(r"plan node, vendors ([\d,]+), batch", capsys.readouterr().err)
        vendors = ["--vendors", printed[1]]
        reports.append(json.loads(path.read_text()))
    for key in ("plan", "vendors", "flops_per_step"):
        assert reports[0][key] == reports[1][key]
    if "--market" not in words:
        assert reports[1]["vendors"] == list(NODE_VENDORS)


@pytest.mark.parametrize(("plan", "specs"), [("star", 3), ("node", 5)])
def test_one_number_means_every_spec(tmp_path, plan, specs):
    path = tmp_path / "out.json"
    assert run("--vendors", "6", "--plan", plan, "--quiet", "--json", str(path)) == 0
    assert json.loads(path.read_text())["vendors"] == [6] * specs


def test_a_checkpoint_is_a_reason(tmp_path, capsys):
    path = str(tmp_path / "state")
    vendors = ["--vendors", "2,3,4"]
    assert run(*vendors, "--plan", "tree", "--checkpoint", path) == 0
    assert run(*vendors, "--resume", path) == 0
    assert f"plan tree, because of --resume {path}\n" in capsys.readouterr().err


def test_the_default_of_residual_networks_needs_no_reason():
    assert resnet18.parse([]).reason_for("star") is None
    assert resnet18.parse(["--resume", "x"]).reason_for("tree") == "--resume x"

"""Which chips the plugin says it runs on, and what it says of the others."""

import json
import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    "MARKETPLACE_PTX_MACHINE" not in os.environ, reason="needs the machine"
)
COMPILED = int(os.environ.get("ARCHITECTURE", "80"))
ASK = "import ptx, marketplace as m, json; print(json.dumps([m.devices(), m.build_info()]))"


def devices_and_problem(capability):
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"ARCHITECTURE": str(capability), "MARKETPLACE_STANDIN_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    devices, build = json.loads(done.stdout)
    return [device["name"] for device in devices], build["plugins"]["cuda"]["problem"]


@pytest.mark.parametrize("capability", [COMPILED, COMPILED + 6, COMPILED + 20, COMPILED + 40])
def test_chips_that_code_or_ptx_is_for(capability):
    assert devices_and_problem(capability) == (["cpu", "cuda:0"], None)


@pytest.mark.parametrize("capability", [70, 75])
def test_older_chips_are_refused_by_name(capability):
    devices, problem = devices_and_problem(capability)
    assert devices == ["cpu"]
    # the PTX is of the last that the plugin has code for
    wanted = rf"expected compute capability 8.0 or more, and code for it \((\d+/)*{COMPILED}\)"
    assert re.search(wanted, problem), problem
    assert f"received emulated sm_{capability}, sm_{capability}" in problem

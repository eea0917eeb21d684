"""What this build has, what this machine can use, and why not."""

import json
import os
import subprocess
import sys

import marketplace as mp
import pytest


def info(plugin_path):
    """``python -m marketplace info`` of a process that looks for plugins in ``plugin_path``."""
    done = subprocess.run(
        [sys.executable, "-m", "marketplace", "info"],
        env={**os.environ, "MARKETPLACE_PLUGIN_PATH": str(plugin_path)},
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_backend_is_usable_or_says_why():
    build, devices = mp.build_info(), mp.devices()
    assert build["backends"][0] == devices[0]["name"] == "cpu"
    assert sorted(build["plugins"]) == ["cuda", "hip"]
    for kind, plugin in build["plugins"].items():
        assert (plugin["path"] is not None) == (kind in build["backends"])
        usable = {device["name"] for device in devices if device["kind"] == kind}
        assert (plugin["problem"] is None) == bool(usable)
        assert not usable & set(plugin["unusable"])


@pytest.mark.parametrize("kind", ["cuda", "hip"])
def test_a_plugin_that_cannot_be_loaded_is_named_with_the_reason(tmp_path, kind):
    library = tmp_path / f"libmarketplace_{kind}.so"
    library.write_text("not a library")
    told = info(f"/nonexistent:{tmp_path}")
    plugin = told["build"]["plugins"][kind]
    assert plugin["path"] == str(library)
    assert "does not load" in plugin["problem"]
    assert kind in told["build"]["backends"]
    assert [device["name"] for device in told["devices"]] == ["cpu"]


def test_several_devices_must_be_gpus_of_one_kind():
    with pytest.raises(ValueError, match="device: expected"):
        mp._core.Engine(["cpu", "cpu"])
    with pytest.raises(ValueError, match="at least one"):
        mp._core.Engine([])
    with pytest.raises(ValueError, match="max_memory_bytes: expected at least 0, received -1"):
        mp._core.Engine("cpu", max_memory_bytes=-1)

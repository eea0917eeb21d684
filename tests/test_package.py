"""The package as a whole: what ``import marketplace`` offers, loads and documents."""

import importlib
import pathlib
import subprocess
import sys
import types

import marketplace as mp
import pytest

API = pathlib.Path(__file__).parents[1] / "docs" / "api.md"
ASK = """
import sys, marketplace as mp
later = [f"marketplace.{name}" for name in ("data", "distributed")]
assert not any(name in sys.modules for name in later), sorted(sys.modules)
assert {"data", "distributed"} <= set(dir(mp))
assert len(mp.data.load("mnist", "bundled").y_train) > 0
assert mp.distributed.RayCluster and all(name in sys.modules for name in later)
"""


@pytest.mark.parametrize("name", mp.__all__)
def test_every_name_is_there(name):
    assert getattr(mp, name) is not None


def test_modules_that_not_all_need_come_when_asked_for():
    subprocess.run([sys.executable, "-c", ASK], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'marketplace' has no attribute 'dada'"):
        mp.dada  # noqa: B018
    assert not hasattr(mp, "dada")


def entries():
    return {line[4:].strip() for line in API.read_text().splitlines() if line.startswith("::: ")}


@pytest.mark.parametrize("name", [name for name in mp.__all__ if name != "__version__"])
def test_every_public_name_has_an_entry(name):
    value = getattr(mp, name)
    if isinstance(value, types.ModuleType):
        assert value.__name__ in entries()
    else:
        modules = map(importlib.import_module, entries())
        assert any(getattr(module, name, None) is value for module in modules)


@pytest.mark.parametrize("ask", [mp.build_info, mp.devices])
def test_what_is_there_is_documented(ask):
    assert "Returns\n" in ask.__doc__
    keys = ask() if ask is mp.build_info else ask()[0]
    for key in keys:
        assert f"``{key}``" in ask.__doc__

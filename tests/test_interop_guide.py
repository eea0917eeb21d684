"""The guide to other libraries' arrays: each library's code as written, where it and a GPU are."""

import importlib.util
import pathlib
import re

import marketplace as mp
import numpy as np
import pytest
from emulated import EMULATED

GUIDE = pathlib.Path(__file__).parents[1] / "docs" / "interop.md"
GPUS = [device["name"] for device in mp.devices() if device["kind"] != "cpu"]
pytestmark = pytest.mark.skipif(not GPUS, reason="no GPU here")


def run(*titles):
    """Run the first block, and those under some titles; give the names that they leave."""
    names: dict = {}
    text = GUIDE.read_text()
    parts = [text, *(text.split(f"\n## {title}\n")[1] for title in titles)]
    for part in parts:
        block = re.search(r"```python.*?\n(.*?)```", part, re.S)[1]
        exec(compile(block, GUIDE.name, "exec"), names)
    return names


def needs(name, on_emulation=False):
    """Skip where a library cannot be imported, or cannot work on the device that is there."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{name} is not installed")
    if EMULATED and not on_emulation:
        pytest.skip(f"{name} needs a real GPU")


def test_numpy():
    names = run()
    assert names["opt"].device == GPUS[0]
    assert np.isfinite(names["loss"]).all()


@pytest.mark.parametrize("library, title", [("cupy", "CuPy"), ("torch", "PyTorch")])
def test_other_libraries(library, title):
    needs(library)
    names = run(title)
    view = names[library].from_dlpack(names["logits"])
    address = view.data_ptr() if library == "torch" else view.data.ptr
    assert address == names["logits"].__cuda_array_interface__["data"][0]
    expected = names["logits"].numpy().argmax(axis=-1)
    np.testing.assert_array_equal(np.asarray(names["best"].tolist()), expected)


def test_hip_python():
    needs("rocm.bindings.util.types", on_emulation=True)
    names = run("hip-python")
    view, hidden = names["view"], names["hidden"]
    assert int(view) == hidden.__cuda_array_interface__["data"][0]
    assert view.shape == hidden.shape
    expected, _ = names["head"].probe(hidden.numpy(), names["y"])
    np.testing.assert_array_equal(names["loss"], expected)

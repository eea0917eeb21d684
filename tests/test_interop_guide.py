"""The guide to other libraries' arrays: each library's code as written, where it and a GPU are."""

import importlib.util
import pathlib
import re

import marketplace as mp
import numpy as np
import pytest
from emulated import EMULATED, GPUS

GUIDE = pathlib.Path(__file__).parents[1] / "docs" / "interop.md"
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


def test_a_stream_of_torch():
    needs("torch")
    torch = pytest.importorskip("torch")
    names = run("PyTorch")
    market, opt, x = names["market"], names["opt"], names["x"]
    expected, _ = mp.forward(market, x.cpu().numpy(), opt.vendors)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        slow = torch.ones(4000, 4000, device="cuda")
        for _ in range(50):
            slow = slow @ slow / 4000
        late = x + (slow[0, 0] - slow[0, 0])  # x, when the products are done
        logits, _ = mp.forward(market, late, opt.vendors, out="device", stream=stream)
        doubled = torch.from_dlpack(logits) * 2
    stream.synchronize()
    np.testing.assert_array_equal(doubled.cpu().numpy(), np.asarray(expected) * 2)


def test_hip_python():
    needs("rocm.bindings.util.types", on_emulation=True)
    names = run("hip-python")
    view, hidden = names["view"], names["hidden"]
    assert int(view) == hidden.__cuda_array_interface__["data"][0]
    assert view.shape == hidden.shape
    expected, _ = names["head"].probe(hidden.numpy(), names["y"])
    np.testing.assert_array_equal(names["loss"], expected)

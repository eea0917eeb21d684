"""Who may include whom: data flows bindings -> market -> backend.h -> cpu or gpu, never back."""

import pathlib
import re
import sys

MAY_INCLUDE = {
    "core": {"core"},
    "graph": {"core", "graph"},
    "backend.h": {"core", "graph"},
    "shares": {"core", "backend.h", "shares"},
    "cpu": {"core", "graph", "backend.h", "shares", "cpu"},
    "market": {"core", "graph", "backend.h", "shares", "market"},
    "gpu": {"core", "graph", "backend.h", "shares", "plugin", "gpu", "simt", "simt_mma"},
    "plugin": {"core", "backend.h"},
    "plugins": {"core", "plugin", "plugins"},
    "devices": {"core", "backend.h", "devices", "plugins", "cpu"},
    "capi": {"core", "graph", "backend.h", "market", "devices", "capi"},
    "bindings": {"core", "graph", "backend.h", "shares", "market", "devices", "bindings"},
}


def room(name: str) -> str:
    """The room of a path below csrc."""
    return name if name == "backend.h" else re.split(r"[/.]", name)[0]


def main() -> int:
    """Print every include that crosses a wall."""
    root = pathlib.Path(__file__).parents[1] / "csrc"
    wrong = []
    for path in sorted(root.rglob("*")):
        if path.suffix not in {".h", ".cpp", ".inc", ".cu"}:
            continue
        here = room(str(path.relative_to(root)))
        text = path.read_text()
        wrong += [
            f"{path.relative_to(root)} includes {name}"
            for name in re.findall(r'#include "([^"]+)"', text)
            if room(name) not in MAY_INCLUDE[here]
        ]
        if "pybind11/" in text and here != "bindings":
            wrong.append(f"{path.relative_to(root)} includes pybind11")
    print("\n".join(wrong) or "includes: every file knows its room")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

"""The binary interface: symbols, layouts, soname, and a header that every compiler takes."""

import re
import subprocess
from pathlib import Path

import clibrary
import pytest

HERE = Path(__file__).parent
HEADER = clibrary.PREFIX / "include" / "marketplace.h"
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def exported() -> list[str]:
    names = (
        line.split()[-1]
        for line in run("nm", "-D", "--defined-only", clibrary.LIBRARY).splitlines()
    )
    return sorted(name.replace("@@", "@") for name in names if "@" in name)


def test_exported_symbols_are_the_committed_list() -> None:
    assert exported() == (HERE / "symbols.txt").read_text().split()


def test_the_header_declares_what_is_exported() -> None:
    declared = re.findall(r"^MP_API .*?\b(mp_\w+)\(", HEADER.read_text(), flags=re.MULTILINE)
    assert sorted(declared) == [name.split("@")[0] for name in exported()]


def test_the_soname_carries_the_version_of_the_interface() -> None:
    version = re.search(r"^#define MP_ABI_VERSION (\d+)$", HEADER.read_text(), flags=re.MULTILINE)
    assert version is not None
    dynamic = run("readelf", "-d", clibrary.LIBRARY)
    assert f"soname: [libmarketplace.so.{version[1]}]" in dynamic


@pytest.mark.parametrize(
    "compiler", [["cc", "-std=c99"], ["c++", "-x", "c++", "-std=c++11"], ["c++", "-x", "c++"]]
)
def test_header_and_layouts(compiler: list[str]) -> None:
    run(*compiler, *STRICT, f"-I{HEADER.parent}", HERE / "layout.c")

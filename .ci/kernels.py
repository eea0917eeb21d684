"""What the compilers made of the kernels: matrix instructions where they belong, and no spills.

``kernels.py cuda LIBRARY PTXAS_LOG`` reads the SASS of a plugin and what ``ptxas -v`` said;
``kernels.py hip FOLDER`` the AMD assembly that ``--save-temps`` left, named after its chip.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# The kernel on which the speed rests, by its mangled name: it must not spill, and its bfloat16 form
# must multiply on the matrix units of every chip that has some; every chip is named.
MAIN = "contract_kernel"
MATRIX = {
    "sm_80": r"HMMA\.16816\.F32\.BF16",
    "sm_90": r"HMMA\.16816\.F32\.BF16",
    "gfx90a": r"v_mfma_f32_16x16x16_?bf16",
    "gfx942": r"v_mfma_f32_16x16x16_bf16",
    "gfx1030": r"v_fma",  # has none
    "gfx1100": r"v_wmma_f32_16x16x16_bf16",
    "gfx1201": r"v_wmma_f32_16x16x16_bf16",
}

# The same of float32 that is rounded for them, where they take it.
MATRIX_TF32 = {"sm_80": r"HMMA\.1688\.F32\.TF32", "sm_90": r"HMMA\.1688\.F32\.TF32"}
# And of float32 as it is; elsewhere every thread multiplies for itself.
MATRIX_FLOAT = {"gfx90a": r"v_mfma_f32_16x16x4_?f32", "gfx942": r"v_mfma_f32_16x16x4_f32"}
FORMS = {"BFloat16": MATRIX, "Tf32": MATRIX_TF32, f"{MAIN}If": MATRIX_FLOAT}

# (chip, kernel, its instructions)
Listing = Iterator[tuple[str, str, str]]
# (kernel, bytes or registers spilled)
Spills = Iterator[tuple[str, int]]


def sass(text: str) -> Listing:
    """Kernels in the output of ``cuobjdump -sass``."""
    chip = "?"
    for part in re.split(r"^(?=\s*(?:arch =|Function :))", text, flags=re.M):
        if found := re.match(r"\s*arch = (\w+)", part):
            chip = found[1]
        elif found := re.match(r"\s*Function : (\S+)", part):
            yield chip, found[1], part


def ptxas_spills(text: str) -> Spills:
    """Bytes in the output of ``ptxas -v``."""
    pattern = (
        r"Function properties for (\S+)\s+.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    )
    for name, stores, loads in re.findall(pattern, text, flags=re.S):
        yield name, int(stores) + int(loads)


def assembly(path: Path) -> Listing:
    """Kernels in a file of AMD assembly."""
    chip = re.search(r"(gfx\w+)\.s$", path.name)
    pattern = r"^(\S+):\s+; @\1$(.*?)^\.Lfunc_end"
    for name, body in re.findall(pattern, path.read_text(), flags=re.M | re.S):
        yield chip[1] if chip else "?", name, body


def assembly_spills(path: Path) -> Spills:
    """Registers, and bytes of scratch, in the metadata of a file of AMD assembly."""
    for entry in re.split(r"^  - (?=\.a)", path.read_text(), flags=re.M)[1:]:
        name = re.search(r"^\s*\.name:\s+(\S+)", entry, flags=re.M)
        counts = re.findall(r"\.[sv]gpr_spill_count:\s+(\d+)", entry)
        scratch = re.search(r"\.private_segment_fixed_size:\s+(\d+)", entry)
        if not name or not scratch or len(counts) != 2:
            raise ValueError(f"{path}: kernel metadata of another form")
        # without matrix units large bfloat16 tiles do not fit; float32 is what such a chip is for
        exempt = "gfx1030" in path.name and "BFloat16" in name[1]
        spilled = sum(map(int, counts)) + int(scratch[1])
        yield f"{path.name}: {name[1]}", 0 if exempt else spilled


def waits_for_fetch(body: str, unit: str) -> bool:
    """Tell whether a k-step of an AMD kernel waits for what it fetches, instead of multiplying.

    Between a barrier and the next jump all loads must come before the products, and all stores of
    what they brought behind them; a compiler that sees no reason puts them side by side.
    """
    for step in re.split(r"^\s+s_(?:barrier|branch)", body, flags=re.M):
        places = [
            [found.start() for found in re.finditer(pattern, step)]
            for pattern in (r"global_load_(b128|dwordx4)", unit, r"ds_(store|write)_b128")
        ]
        if all(places):
            loads, products, stores = places
            return max(loads) > min(products) or min(stores) < max(products)
    return True


def complaints(listing: Listing, spills: Iterable[tuple[str, int]]) -> tuple[list[str], list[str]]:
    """Compare with what is wanted: (what is fine, what is wrong)."""
    fine: list[str] = []
    wrong: list[str] = []
    seen: dict[tuple[str, str], list[int]] = {}
    for chip, name, body in listing:
        form = next((form for form in FORMS if form in name), "")
        wanted = MATRIX[chip] if form == "BFloat16" else FORMS.get(form, {}).get(chip)
        if MAIN not in name or wanted is None:
            continue
        count = len(re.findall(wanted, body))
        seen.setdefault((chip, wanted), []).append(count)
        if count == 0:
            wrong.append(f"{chip}: no {wanted} in {name}")
        elif "mfma" in wanted or "wmma" in wanted:
            if "ElementLoader" not in name and waits_for_fetch(body, wanted):
                wrong.append(f"{chip}: products wait for what is fetched in {name}")
    for (chip, wanted), counts in seen.items():
        fine.append(f"{chip}: {sum(counts)} {wanted} in {len(counts)} kernels")
    if not seen:
        wrong.append(f"no {MAIN} for bfloat16 in the listing")
    main_spills = [(name, count) for name, count in spills if MAIN in name]
    if not main_spills:
        wrong.append(f"nothing is said about the spills of {MAIN}")
    wrong += [f"{count} spilled in {name}" for name, count in main_spills if count > 0]
    fine.append(f"{len(main_spills)} forms of {MAIN} looked at for spills")
    return fine, wrong


def main(vendor: str, place: str, log: str = "") -> int:
    """Print what was found; 1 when something is wrong."""
    if vendor == "cuda":
        text = subprocess.run(
            ["cuobjdump", "-sass", place], check=True, capture_output=True, text=True
        ).stdout
        fine, wrong = complaints(sass(text), ptxas_spills(Path(log).read_text()))
    else:
        files = sorted(Path(place).rglob("*gfx*.s"))
        fine, wrong = complaints(
            (kernel for path in files for kernel in assembly(path)),
            [spill for path in files for spill in assembly_spills(path)],
        )
    print("\n".join(fine))
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

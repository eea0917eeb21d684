"""All measurements of a folder as one text.

python -m benchmarks.gpu.summary FOLDER
"""

import json
import pathlib
import sys
from typing import Any

from benchmarks import step_cost, table


def text(folder: pathlib.Path) -> str:
    """Give the costs of steps, then one table of all that ``benchmarks.peers`` measured."""
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
    costs = [step_cost.text(result) for result in found.values() if "train_step_ms" in result]
    contests = {name: result for name, result in found.items() if "peak_flops" in result}
    rows = [line for name, result in contests.items() for line in _contest(name, result)]
    return "\n\n".join([*costs, "\n".join([table.HEADER, *rows])] if rows else costs)


def _read(path: pathlib.Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _contest(name: str, result: dict[str, Any]) -> list[str]:
    rows = [table.Row(**row) for row in result["rows"]]
    peaks = (f"{dtype} {peak / 1e12:.1f} TFLOP/s" for dtype, peak in result["peak_flops"].items())
    return [
        f"-- {name}: our batch {result['our_batch']}; peak {', '.join(peaks)}",
        *map(table.line, rows),
        *table.verdicts(rows, result["device"]),
        *(f"skipped {note}" for note in result["notes"]),
        *(f"missing {what}" for what in result["missing"]),
    ]


if __name__ == "__main__":
    print(text(pathlib.Path(sys.argv[1])))

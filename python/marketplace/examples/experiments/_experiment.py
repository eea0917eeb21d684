"""What an experiment is: a variable swept over values, every value a run of some example."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

Value = str | int | float


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes
    ----------
    values : mapping of str to value
        What is varied, as the table shows it.
    program : str
        The example that runs, a module of ``marketplace.examples``.
    arguments : tuple of str
        Its command line.
    base : str or None
        Which of the experiment's base models it starts from.
    files : mapping of str to str
        Options that name files, such as ``--replay``, with the ends of the files' names.
    """

    values: Mapping[str, Value]
    program: str
    arguments: tuple[str, ...]
    base: str | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called: its values in a row."""
        return " ".join(f"{key} {value}" for key, value in self.values.items())

    @property
    def stem(self) -> str:
        """What its files are called."""
        return "-".join(self.name.replace(",", ".").replace("/", " ").split())


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One of the reference's experiments.

    Attributes
    ----------
    name : str
        Its file in the reference.
    summary : str
        What it varies, in a line.
    trials : tuple of Trial
        Its runs, in the reference's order.
    bases : mapping of str to tuple of str
        Command lines of ``examples.mnist`` that train the models to start from.
    note : str
        Where ours differs.
    """

    name: str
    summary: str
    trials: tuple[Trial, ...]
    bases: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    note: str = ""


def arguments(options: Mapping[str, object]) -> tuple[str, ...]:
    """Write options as a command line; True is an option without a value."""
    words: list[str] = []
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return tuple(words)


def trial(program: str, values: Mapping[str, Value], **options: object) -> Trial:
    """Make a run from its values and its options."""
    return Trial(values, program, arguments(options))


def span(start: float, step: float, indices: Iterable[int]) -> list[float]:
    """Give ``start + step * i``, without the digits that binary fractions would add."""
    return [round(start + step * index, 6) for index in indices]

"""Learning curves from logs, JSON reports or arrays. Needs the extra ``[plot]`` (matplotlib).

>>> from marketplace import plot
>>> runs = [plot.load_run(f"star_{seed}.jsonl", "star") for seed in range(5)]  # doctest: +SKIP
>>> figure = plot.learning_curves(runs, x="flops")                             # doctest: +SKIP
>>> plot.save(figure, "learning.png")                                          # doctest: +SKIP

Runs with the same label are drawn as their mean, with a band of one standard deviation. The same
from the command line: ``python -m marketplace plot star=star_0.jsonl star=star_1.jsonl -o FILE``.
"""

from ._figures import continual_curves, learning_curves, require_matplotlib, save
from ._runs import Run, load_run, make_run

__all__ = [
    "Run",
    "continual_curves",
    "learning_curves",
    "load_run",
    "make_run",
    "require_matplotlib",
    "save",
]

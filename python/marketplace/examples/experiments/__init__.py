"""The reference's experiments: ``python -m marketplace.examples.experiments NAME``.

Each is a preset that sweeps the same variable over the same values; all share one driver.
``docs/experiments.md`` maps them one by one.
"""

from ._driver import main
from ._experiment import Experiment, Trial
from ._options import EXPERIMENTS, PROG

__all__ = ["EXPERIMENTS", "PROG", "Experiment", "Trial", "main"]

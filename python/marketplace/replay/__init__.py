"""A run's log that rebuilds the weights of any of its steps, bit for bit.

A step of V2 is ``W += lr g / |g|`` with ``g = sum_v c_v delta_v``, and the deltas follow from
seeds: the coefficients ``c``, four bytes each, and the learning rates are the whole step.
``Recorder`` writes them down while an optimizer trains; ``rebuild`` takes the steps again, from the
checkpoint that the log began from or from any later one, without data and without a forward
pass::

    with replay.Recorder("run.replay", optimizer):
        for x, y in batches:
            optimizer.train_step(x, y)

    arrays = replay.rebuild("run.replay", step=250)

The same from the command line: ``python -m marketplace replay run.replay --step 250 --out FILE``.
The rebuilt file is a checkpoint for ``load_checkpoint``.
"""

from ._log import Log, read
from ._rebuild import rebuild, write
from ._recorder import Recorder

__all__ = ["Log", "Recorder", "read", "rebuild", "write"]

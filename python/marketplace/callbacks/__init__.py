"""Watching a run: a status dict after every step, for displays, logs and functions of your own.

``Watch`` measures time and work, asks for the learning rates and hands one flat dict to every
callback::

    from marketplace.callbacks import CSVLogger, ProgressBar, Watch

    with Watch(optimizer, [CSVLogger("run.csv"), ProgressBar(), print], steps=400) as watch:
        for x, y in batches:
            loss, paths = optimizer.train_step(x, y)
            watch.step(loss[0])

A status has ``step``, ``steps`` (if known), ``seconds`` of training, ``flops`` (if known), and
metrics under the names that the reference logs: ``training/loss``, ``training/accuracy``,
``training/lr``, ``training/gflops``, ``testing/accuracy``, and with a meta learning rate
``testing/meta_lr`` and ``training/adaptive_lr_0``, ...
"""

from ._base import Callback, Status, Watch
from ._files import CSVLogger, JSONLogger, read_rows
from ._progress import ProgressBar
from ._services import MLflowLogger, TensorBoardLogger

__all__ = [
    "CSVLogger",
    "Callback",
    "JSONLogger",
    "MLflowLogger",
    "ProgressBar",
    "Status",
    "TensorBoardLogger",
    "Watch",
    "read_rows",
]

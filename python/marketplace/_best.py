"""V1's update: the best path's vendors become the base weights."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import F32, I32, ignored_input, integer
from ._gpu_arrays import cut
from ._recording import AS_IS, Draw, describe_draw
from ._scores import topk
from ._steps import UnitVectorMode
from ._turns import in_turn
from ._updates import UpdateParts


class BestParts(UpdateParts):
    """Keeps the best of a probe's paths; ``Optimizer`` builds on it."""

    @in_turn
    def keep_best(self, loss: ArrayLike, paths: ArrayLike) -> int:
        """Make the best path's vendors the base weights, and draw new vendors around them (V1).

        ``W_i += delta_i of the path with the lowest loss``; ties go to the earlier path. Vendor
        v > 0 then becomes ``W + uniform(-a, a)``, a being ``learning_rate * probe_scale``, or the
        learning rate without a probe scale. Meta learning rates play no part.

        Parameters
        ----------
        loss : array (P,)
            Losses of paths.
        paths : integer array (P, S)
            Their paths.

        Returns
        -------
        int
            The best path's row.

        Raises
        ------
        TypeError, ValueError
            As ``step``, or for another plan than tree and star. Nothing has changed then.
        RuntimeError
            After ``add_replica``: directions cannot be summed with best vendors; or between
            ``update_lr_scales`` and ``update_seeds``.
        """
        losses, rows, _ = self._scored("keep_best", loss, paths, UnitVectorMode.per_spec)
        self._refuse_line_search("keep_best")
        self._refuse_other_plans("keep_best", "V1")
        native = self._ready()
        if self._listeners:
            chosen = rows[int(topk(losses, 1, largest=False)[1][0])]
            self._record([self._chosen(chosen)], AS_IS, np.ones(len(chosen), dtype=np.float32))
        best = native.keep_best(losses, rows)
        self._end_update()
        return best

    @in_turn
    def keep_best_of(
        self,
        x: Any,
        y: Any,
        *,
        ignore_index: int | None = None,
        forward_pass: int = 1,
        stream: Any = None,
    ) -> tuple[F32, I32]:
        """Probe and ``keep_best``; give the losses and paths that the best was chosen from.

        Parameters
        ----------
        x : array (n B, ...)
            Samples of all minibatches; of dtypes as for ``probe``.
        y : integer array (n B,)
            Labels.
        ignore_index : int, optional
            A label whose samples count for nothing.
        forward_pass : int
            How many minibatches n the samples are cut into, as for ``train_step``.
        stream : int or object, optional
            As for ``probe``.

        Returns
        -------
        loss : float32 array (P,)
            Mean losses; the first of the lowest is of the path whose vendors were kept.
        paths : int32 array (P, S)
            Their paths.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As ``probe`` and ``keep_best``. The weights and the vendors are as they were then.

        Notes
        -----
        On GPUs the host is not asked in between where ``train_step`` does not ask it either.
        """
        op = "keep_best_of"
        self._refuse_line_search(op)
        self._refuse_other_plans(op, "V1")
        count = integer(forward_pass, op, "forward_pass", 1)
        minibatches = cut(*self._batch(op, x, y, stream), count, op)
        self._start_over()
        if count == 1 and self._is_plain():
            ignored = ignored_input(ignore_index, op)
            loss, paths = self._ready().keep_best_of(*minibatches[0], ignored)
            self._end_update()
            return loss, paths
        for part, labels in minibatches:
            loss, paths = self.accumulate(part, labels, ignore_index=ignore_index)
        self.keep_best(loss, paths)
        return loss, paths

    def _chosen(self, path: I32) -> Draw:
        """Describe one path's vendors as a draw."""
        counts = [spec.vendor_count for spec in self.marketplace]
        return describe_draw(
            self._ready(), [np.eye(1, v, k)[0] for v, k in zip(counts, path, strict=True)]
        )

"""The shape of a traced value: of its extents only the batch's can be named."""

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ._trace import Trace


class _Batch:
    """Stands for the batch extent: ``x.shape[0]``, the first entry of a reshape."""

    def __repr__(self) -> str:
        return "B"


BATCH = _Batch()


class TracedShape:
    """The shape of a traced value, of which only the batch extent can be named."""

    def __init__(self, trace: "Trace") -> None:
        self._trace = trace

    def __getitem__(self, index: Any) -> _Batch:
        if isinstance(index, int) and index == 0:
            return BATCH
        raise self._trace.refuse("only x.shape[0] of a traced value", f"x.shape[{index!r}]")

    def __iter__(self) -> NoReturn:
        raise self._trace.refuse("only x.shape[0] of a traced value", "the whole x.shape")

    def __len__(self) -> NoReturn:
        raise self._trace.refuse("only x.shape[0] of a traced value", "len(x.shape)")

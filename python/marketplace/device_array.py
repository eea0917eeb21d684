"""``DeviceArray``: results that stay in a GPU's memory, for other libraries to take as they are."""

import operator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _core
from ._arrays import refusal

__all__ = ["DeviceArray"]

_HOST = (1, 0)  # DLPack's device type and index


class DeviceArray:
    """A float32 array in a GPU's memory, row-major, such as ``forward(..., out="device")`` gives.

    CuPy, hip-python, PyTorch and others take it without a copy, by ``__dlpack__`` or
    ``__cuda_array_interface__``; NumPy gets a copy. Whatever takes it shares its memory, which goes
    back to the device when the last one lets go.

    Parameters
    ----------
    tensor : DeviceTensor
        The engine's.

    Notes
    -----
    Memory is used again in the order of the device's default stream: who works on the array in
    another, non-blocking stream lets go of it when that work is done, or ordered before the default
    stream.
    """

    def __init__(self, tensor: _core.DeviceTensor) -> None:
        if not isinstance(tensor, _core.DeviceTensor):
            wanted = "what forward(..., out='device') gives"
            raise refusal(TypeError, "DeviceArray", wanted, type(tensor).__name__)
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self._tensor.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float32."""
        return np.dtype(self._tensor.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.nbytes // self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of device memory."""
        return self._tensor.nbytes

    @property
    def device(self) -> str:
        """Name of the device, as in ``marketplace.devices()``."""
        return f"{self._tensor.exchange.kind}:{self._tensor.device}"

    def __len__(self) -> int:
        """Give the extent of the first axis."""
        if not self.shape:
            raise refusal(TypeError, "len", "at least one axis", "a 0-d array")
        return self.shape[0]

    def __repr__(self) -> str:
        """Describe the array; its values stay where they are."""
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device='{self.device}')"

    def numpy(self) -> NDArray[Any]:
        """Copy the values to the host, waiting for them.

        Returns
        -------
        float32 array of the same shape
            In host memory of its own, C-contiguous.

        Raises
        ------
        RuntimeError
            For a device that fails.
        """
        return self._tensor.numpy()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Give NumPy a copy on the host.

        Raises
        ------
        ValueError
            For ``copy=False``.
        """
        if copy is False:
            raise refusal(
                ValueError, "DeviceArray", "copy None or True: NumPy has host memory", copy
            )
        return self.numpy().astype(dtype or self.dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: the values are there in the order of ``stream``."""
        tensor = self._tensor
        return {
            "shape": tensor.shape,
            "typestr": self.dtype.str,
            "data": (tensor.address, False),
            "strides": None,
            "stream": tensor.exchange.stream(tensor.device),
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Give DLPack's device type (2 CUDA, 10 ROCm) and the device's index."""
        return self._tensor.device_type, self._tensor.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Give a DLPack capsule whose values are there in the order of ``stream``.

        Parameters
        ----------
        stream : int, optional
            The consumer's stream. CUDA: 1 for the default stream, which None means too, 2 for the
            thread's, or a handle; ROCm: 0, which None means too, or a handle. -1 for no order.
        max_version : pair of int, optional
            Newest version that the consumer knows; from (1, 0) on, the capsule is versioned.
        dl_device : pair of int, optional
            Where the values are wanted: where they are, or (1, 0) for a copy on the host.
        copy : bool, optional
            Whether to copy; by default only if needed.

        Raises
        ------
        BufferError
            For another device, or a copy to the host that ``copy=False`` forbids.
        ValueError
            For a stream that the device's kind does not have.
        """
        if dl_device is not None and tuple(dl_device) == _HOST:
            return self._host_capsule(stream, max_version, copy)
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            wanted = f"device {self.__dlpack_device__()} or {_HOST}"
            raise refusal(BufferError, "__dlpack__", wanted, tuple(dl_device))
        tensor = self._tensor.copy() if copy else self._tensor
        handle = self._consumer_stream(stream)
        if handle is not None:
            tensor.exchange.go_before(tensor.device, handle)
        return tensor.to_dlpack(max_version is not None and max_version[0] >= 1, bool(copy))

    def _consumer_stream(self, stream: int | None) -> int | None:
        """Give the handle of a stream in DLPack's numbers; None for no order."""
        if stream is None:
            return 0
        number = operator.index(stream)
        unknown = (1, 2) if self._tensor.exchange.kind == "hip" else (0,)
        if number < -1 or number in unknown:
            wanted = f"a stream of a {self._tensor.exchange.kind} device, None or -1"
            raise refusal(ValueError, "__dlpack__", wanted, number)
        return None if number == -1 else number

    def _host_capsule(
        self, stream: int | None, max_version: tuple[int, int] | None, copy: bool | None
    ) -> Any:
        if copy is False:
            raise refusal(BufferError, "__dlpack__", "copy None or True to the host", copy)
        if stream is not None:
            raise refusal(ValueError, "__dlpack__", "no stream on the host", stream)
        host: Any = self.numpy()
        return (
            host.__dlpack__() if max_version is None else host.__dlpack__(max_version=max_version)
        )

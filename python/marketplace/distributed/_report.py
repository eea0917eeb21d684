"""What a worker tells of its share of a probe, in bytes: 16, and four a path."""

import struct
from dataclasses import dataclass

import numpy as np

from .._arrays import F32

HEAD = struct.Struct("<IfII")  # whole float32s, so that the losses behind it are aligned


@dataclass(frozen=True)
class Report:
    """A worker's answer.

    Attributes
    ----------
    seconds : float
        Time that the share took.
    step : int
        The worker's ``global_step``, modulo 2^32.
    checksum : int
        CRC-32 of its weights where the probe is one at which they are compared, else 0.
    losses : float32 array
        Of its paths, in depth-first order.
    failed : bool
        It could not evaluate them; the losses mean nothing then.
    """

    seconds: float
    step: int
    checksum: int
    losses: F32
    failed: bool = False

    def to_bytes(self) -> bytes:
        """Give the message."""
        head = HEAD.pack(self.failed, self.seconds, self.step % 2**32, self.checksum)
        return head + self.losses.astype("<f4", copy=False).tobytes()

    @staticmethod
    def from_bytes(data: bytes | memoryview) -> "Report":
        """Read a message."""
        failed, seconds, step, checksum = HEAD.unpack_from(data)
        losses = np.frombuffer(data, dtype="<f4", offset=HEAD.size).astype(np.float32)
        return Report(seconds, step, checksum, losses, bool(failed))

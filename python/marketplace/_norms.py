"""Layers that normalise: over positions, over the batch, over the last axes."""

from typing import overload

import numpy as np

from ._arrays import IntPair, integer, refusal, scalar
from ._layer import Field, Layer, changed, takes_vendor_count
from ._parameters import Parameter
from ._trace import Value
from .functional import normalised_shape


class _Norm(Layer):
    """What the normalisations share: scale 1 and shift 0 at first, or neither."""

    weight = Field()
    bias = Field()

    def _start(self, shape: tuple[int, ...], eps: float, affine: bool) -> None:
        self.eps = scalar(eps, type(self).__name__, "eps")
        self._own("weight", Parameter(np.ones(shape)) if affine else None)
        self._own("bias", Parameter(np.zeros(shape)) if affine else None)

    def _shown_with(self, size: object, momentum: float = 0.1) -> list[str]:
        affine = (self._has("weight"), True)
        options = changed(eps=(self.eps, 1e-5), momentum=(momentum, 0.1), affine=affine)
        return [str(size), *options]


class InstanceNorm(_Norm):
    """Normalisation of every channel of every sample: ``marketplace.functional.instance_norm``.

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    affine : bool
        Whether channels are scaled and shifted.

    Attributes
    ----------
    num_features : int
    eps : float
        As given.
    weight, bias : float32 array (C,) or None
        Scale, at first 1, and shift, at first 0.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``.

    Notes
    -----
    ``InstanceNorm(vendor_count, num_features)`` is accepted too.
    """

    @overload
    def __init__(
        self,
        num_features: int,
        *,
        eps: float = ...,
        affine: bool = ...,
        vendor_count: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        vendor_count: int,
        num_features: int,
        *,
        eps: float = ...,
        affine: bool = ...,
    ) -> None: ...
    @takes_vendor_count
    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
    ) -> None:
        self.num_features = integer(num_features, "InstanceNorm", "num_features", 1)
        self._start((self.num_features,), eps, affine)

    def _shown(self) -> list[str]:
        return self._shown_with(self.num_features)

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.instance_norm(
            own["weight"], own["bias"], channels=self.num_features, eps=self.eps
        )


class BatchNorm(_Norm):
    """Normalisation of every channel over the batch: ``marketplace.functional.batch_norm``.

    Probing and ``forward`` use the batch's statistics; ``straight_forward`` and calls of the model
    use the running ones, which each step of an optimizer moves towards the leader's batch
    statistics (PyTorch's rule, unbiased variance). Running statistics are never perturbed.

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    momentum : float
        Share of the newest batch in the running statistics, in [0, 1].
    affine : bool
        Whether channels are scaled and shifted.

    Attributes
    ----------
    num_features : int
    eps, momentum : float
        As given.
    weight, bias : float32 array (C,) or None
        Scale, at first 1, and shift, at first 0.
    running_mean, running_var : float32 array (C,)
        Running statistics, at first 0 and 1.
    num_batches_tracked : int64 array ()
        How many batches moved them.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``, and for a momentum outside [0, 1].

    Notes
    -----
    ``BatchNorm(vendor_count, num_features)`` is accepted too.
    """

    running_mean = Field()
    running_var = Field()
    num_batches_tracked = Field()

    @overload
    def __init__(
        self,
        num_features: int,
        *,
        eps: float = ...,
        momentum: float = ...,
        affine: bool = ...,
        vendor_count: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        vendor_count: int,
        num_features: int,
        *,
        eps: float = ...,
        momentum: float = ...,
        affine: bool = ...,
    ) -> None: ...
    @takes_vendor_count
    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        features = self.num_features = integer(num_features, "BatchNorm", "num_features", 1)
        self.momentum = scalar(momentum, "BatchNorm", "momentum")
        if self.momentum > 1:
            raise refusal(ValueError, "BatchNorm", "momentum of at most 1", momentum)
        self._start((features,), eps, affine)
        self._own("running_mean", Parameter(np.zeros(features), buffer=True))
        self._own("running_var", Parameter(np.ones(features), buffer=True))
        self._own("num_batches_tracked", Parameter(0, buffer=True, dtype=np.int64))

    def _shown(self) -> list[str]:
        return self._shown_with(self.num_features, self.momentum)

    def _record(self, value: Value) -> Value:
        own = vars(self)
        value.trace.parameter(own["num_batches_tracked"])
        return value.batch_norm(
            own["weight"],
            own["bias"],
            running_mean=own["running_mean"],
            running_var=own["running_var"],
            eps=self.eps,
            momentum=self.momentum,
        )


class LayerNorm(_Norm):
    """Normalisation over the last axes: ``marketplace.functional.layer_norm``.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Extents of the axes to normalise over.
    eps : float
        Added to the variance.
    affine : bool
        Whether the result is scaled and shifted; ``elementwise_affine`` is the same.

    Attributes
    ----------
    normalized_shape : tuple of int
    eps : float
        As given.
    weight, bias : float32 array of ``normalized_shape`` or None
        Scale, at first 1, and shift, at first 0.

    Raises
    ------
    TypeError, ValueError
        As ``Conv2d``.

    Notes
    -----
    ``LayerNorm(vendor_count, normalized_shape)`` is accepted too.
    """

    @overload
    def __init__(
        self,
        normalized_shape: IntPair,
        *,
        eps: float = ...,
        affine: bool = ...,
        elementwise_affine: bool = ...,
        vendor_count: int | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        vendor_count: int,
        normalized_shape: IntPair,
        *,
        eps: float = ...,
        affine: bool = ...,
        elementwise_affine: bool = ...,
    ) -> None: ...
    @takes_vendor_count
    def __init__(
        self,
        normalized_shape: IntPair,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        elementwise_affine: bool = True,
    ) -> None:
        self.normalized_shape = normalised_shape(normalized_shape, "LayerNorm")
        self._start(self.normalized_shape, eps, affine and elementwise_affine)

    def _shown(self) -> list[str]:
        shape = self.normalized_shape
        return self._shown_with(shape if len(shape) > 1 else shape[0])

    def _record(self, value: Value) -> Value:
        own = vars(self)
        return value.layer_norm(
            own["weight"], own["bias"], shape=self.normalized_shape, eps=self.eps
        )

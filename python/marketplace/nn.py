"""Layers, and models made of them.

``Model(*layers)`` calls its layers once on a symbolic value; layers, functions (``nn.relu``) and
lambdas (``lambda x: x / 255``, ``lambda x: x + skip(x)``) all write their operations down. Layers
also run on arrays.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, overload

from numpy.typing import ArrayLike, NDArray

from . import _core as engine
from ._arrays import market_input, refusal, shape_input
from ._copying import copy_layers, functions_with_layers
from ._eager import infer
from ._functions import avg_pool2d, flatten, gelu, max_pool2d, relu, sigmoid, tanh
from ._layer import Layer
from ._layers import Conv2d, Linear
from ._norms import BatchNorm, InstanceNorm, LayerNorm
from ._parameters import discover
from ._trace import Trace, Value, describe
from .tensor import Tensor

__all__ = [
    "BatchNorm",
    "Conv2d",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "Linear",
    "Model",
    "avg_pool2d",
    "flatten",
    "gelu",
    "max_pool2d",
    "relu",
    "sigmoid",
    "tanh",
]


class Model:
    """Layers in a row, with their parameters by name.

    Parameters
    ----------
    *layers : callable, or one list of them
        Layers, functions, lambdas, models, or objects with layers as attributes; each is called
        once, here, on a symbolic value.

    Attributes
    ----------
    layers : tuple of callable
        The layers. An array of a layer, such as ``layers[0].weight``, reads and sets the model's.
    vendor_counts : dict of str to int
        Vendor counts of the older spelling, by layer.

    Raises
    ------
    TypeError
        For no layers, or a layer that cannot be traced; it names the layer's index and type.
    ValueError
        For layers that do not fit one another.

    Notes
    -----
    A layer used twice shares its arrays. A layer taken by a second model belongs to that one from
    then on; the first takes its values over whenever it is used.

    ``copy.deepcopy`` gives a model of its own, with the present values. So does ``pickle``, which
    needs layers and functions that it can find by name: no lambdas, and no functions that know
    layers by their variables.
    """

    def __init__(self, *layers: Any) -> None:
        self.layers: tuple[Callable[[Any], Any], ...] = _as_layers(layers)
        self.vendor_counts: Mapping[str, int] = self._record()

    def _record(self) -> dict[str, int]:
        """Call the layers on a symbolic value; give the vendor counts that they name."""
        found = discover(self.layers)
        trace = Trace(found.keys, frozenset(found.arrays))
        trace.graph.set_output(trace.call(self.layers, trace.input).node)
        for parameter in found.attributes:
            trace.parameter(parameter)  # those of layers that were not called count as well
        self._native = engine.Model(trace.graph)
        # a proxy, so that a model around this one finds the layers and not this table
        self._parameters = MappingProxyType(
            {key: trace.parameters[key] for key in found.keys.values() if key in trace.parameters}
        )
        self._bind()
        return dict(trace.vendor_counts)

    # -- copies ------------------------------------------------------------------------------------

    def __copy__(self) -> "Model":
        """Give a model of the same layers and arrays."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> "Model":
        """Give a model of copied layers and arrays."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        state = self._plain_state()
        layers = copy_layers(state.pop("layers"), memo)
        twin.__setstate__({"layers": layers, **copy.deepcopy(state, memo)})
        for key, parameter in twin._parameters.items():
            if parameter is self._parameters.get(key):
                received = f"{key}, which the copy would share"
                raise refusal(TypeError, "deepcopy", "layers that can be copied", received)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Give what is pickled: the layers, with their arrays."""
        for function in functions_with_layers(self.layers):
            wanted = "layers that the model holds as arguments or attributes"
            received = f"{describe(function)}, which knows layers by its variables"
            raise refusal(TypeError, "pickle", wanted, received)
        return self._plain_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Record the layers anew."""
        vars(self).update(state)
        self._record()

    def _plain_state(self) -> dict[str, Any]:
        engines = ("_native", "_parameters")
        return {name: value for name, value in vars(self).items() if name not in engines}

    # -- what it does ------------------------------------------------------------------------------

    @property
    def _core(self) -> "engine.Model":
        """The engine's model, holding this model's values."""
        self._bind()
        return self._native

    def _bind(self) -> None:
        for key, parameter in self._parameters.items():
            parameter.bind(self._native, key)

    @overload
    def __call__(self, x: Value) -> Value: ...
    @overload
    def __call__(self, x: NDArray[Any]) -> Tensor: ...
    def __call__(self, x: Value | NDArray[Any]) -> Value | Tensor:
        """Record the layers on a traced value, or run them on an array ``x (B, ...)``.

        Uint8 and float32 are taken as they are, other real dtypes become float32.
        """
        if isinstance(x, Value):
            return x.trace.call(self.layers, x)
        return Tensor.wrap(infer(self._core, market_input(x, "model"), "model"))

    def __repr__(self) -> str:
        """Name the layers."""
        return f"{type(self).__name__}({', '.join(_shown(layer) for layer in self.layers)})"

    @property
    def parameter_count(self) -> int:
        """Number of trainable values; running statistics do not count."""
        return self._native.parameter_count

    def output_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Give one output's shape for one input's, both without the batch.

        Raises
        ------
        TypeError
            For what is no sequence of integers.
        ValueError
            For an input that a layer does not take; it names the layer.
        """
        return self._native.output_shape(shape_input(input_shape, "output_shape", "input_shape"))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Give copies of all arrays by key, as ``layers.0.weight``.

        Returns
        -------
        dict of str to ndarray
            Parameters and running statistics, float32; ``num_batches_tracked`` int64.
        """
        return {key: parameter.value for key, parameter in self._parameters.items()}

    def load_state_dict(self, state_dict: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Take arrays by key; nothing changes unless all of them fit.

        Parameters
        ----------
        state_dict : mapping of str to array
            Arrays of the shapes that ``state_dict()`` gives.
        strict : bool
            Whether the keys must be exactly the model's; otherwise only common ones are taken.

        Raises
        ------
        ValueError
            For missing, unknown or differently shaped arrays.
        TypeError
            For what is no mapping, or no array of real numbers.
        """
        if not isinstance(state_dict, Mapping):
            received = type(state_dict).__name__
            raise refusal(TypeError, "load_state_dict", "a mapping of keys to arrays", received)
        known = self._parameters
        missing = [key for key in known if key not in state_dict]
        unknown = [key for key in state_dict if key not in known]
        if strict and (missing or unknown):
            received = f"missing {missing} and unknown {unknown}"
            raise refusal(ValueError, "load_state_dict", "the model's keys", received)
        checked = {
            key: parameter.check(state_dict[key], "load_state_dict", key)
            for key, parameter in known.items()
            if key in state_dict
        }
        for key, value in checked.items():
            known[key].assign(value)


def _shown(layer: object) -> str:
    """Show a layer or model as it could be written, anything else by its name."""
    if isinstance(layer, Layer | Model):
        return repr(layer)
    name = getattr(layer, "__name__", None)
    return name if isinstance(name, str) else type(layer).__name__


def _as_layers(layers: tuple[Any, ...]) -> tuple[Callable[[Any], Any], ...]:
    if len(layers) == 1 and isinstance(layers[0], list | tuple) and not callable(layers[0]):
        layers = tuple(layers[0])
    if not layers:
        raise refusal(TypeError, "model", "at least one layer", "none")
    for index, layer in enumerate(layers):
        if not callable(layer):
            where = f"model: layers.{index}"
            raise refusal(TypeError, where, "a layer that can be called", describe(layer))
    return layers

"""V2: combine the losses of all paths into one direction per spec, and step along it.

``z = -(loss - mean) / std`` over the paths (sample standard deviation), ``g = sum z delta`` over
the paths' vendors, ``W += lr g / |g|``. Deltas are uniform in ``lr * probe_scale`` around zero;
they follow from one seed per vendor and are regenerated wherever they are used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import _core, _state, random
from ._arrays import (
    F32,
    I32,
    integer,
    refusal,
    scalar,
    seed_input,
    shape_input,
    word,
)
from ._contexts import SpecContext, ViewParts
from ._engine import make_engine
from ._market import Blueprint, Spec, check_market, make_market
from ._recording import Draw, present_rates
from ._steps import Number, UnitVectorMode, checked_seeds, default_update, warn_if
from ._turns import in_turn
from .checkpoint import FilePath

__all__ = ["Optimizer", "SpecContext", "UnitVectorMode"]


class Optimizer(ViewParts):
    """Trains a market with forward passes only.

    Parameters
    ----------
    marketplace : sequence of Spec
        The market; its weights are updated in place.
    learning_rate : float or 0-d array
        Length of a step. The object is kept: changes of it, or of the attribute, take effect.
    meta_learning_rate : float or 0-d array, optional
        Makes every step a line search: a second forward finds each spec's learning rate among
        ``lr (1 + s)``, s uniform within this number of zero.
    seeds : sequence of uint64 array (V,), optional
        Seeds of the first vendors, per spec; drawn from ``seed`` if not given.
    probe_scale : float or 0-d array, optional
        Largest element of a delta, as a multiple of the learning rate; 1 if not given. Of plan
        "node": size of the noise, as a multiple of the root mean square of the sums that it is
        added to; 0.003 if not given.
    plan : {"tree", "star", "scatter", "node"}
        Which paths are probed: all of them; the leader's and those that leave it in one spec; for
        continual learning, one for every sample; or node perturbation (see Notes).
    device : str or sequence of str
        Names from ``marketplace.devices()``, or "auto": a GPU where one can be used. Several GPUs
        of one kind share each probe's paths (plan "node": the samples), with the results of one.
    dtype : {"float32", "bfloat16", "tf32"} or NumPy dtype
        What products are computed in; weights are float32. "tf32" is for GPUs: float32 whose
        products round their factors to 10 bits of mantissa where there are units for that.
    seed : int, optional
        Master seed: step t's seeds are a function of (seed, t, spec, vendor). Drawn from
        ``marketplace.random`` if not given.
    threads : int, optional
        Threads of the CPU; all if not given. Results do not depend on it.
    max_memory_bytes : int, optional
        Most to use on each GPU; most of what is free if not given. Results do not depend on it.
    control_variate : bool
        Of a scatter: ``probe`` gives every sample's loss less that of the base weights on it, so
        that what samples differ in does not hide what the deltas did, for a second forward pass.
    update : {"unit", "momentum", "clipup", "adam"}, optional
        How a direction d becomes a step ``W += lr step``: ``d / |d|``; ``m = momentum m + d``
        (Polyak 1964); ``d / |d|`` with momentum, the speed limited to 2 (ClipUp, Toklu et al.
        2020); Adam (Kingma & Ba 2015; b1 = momentum, b2 = 0.99, eps = 1e-8). By default "adam" for
        plan "node", else "unit". Momentum and Adam start from d / |d| where d has no scale of its
        own (every plan but "node").
    momentum : float
        See ``update``.
    shaping : {"z", "rank", "sign"}
        How losses become scores s, of which ``g = sum s delta``: ``-(loss - mean) / std``; ranks
        from 0.5 for the lowest loss to -0.5 for the highest, equal losses sharing the mean of
        theirs (Salimans et al. 2017); or the sign of ``median - loss``. With plan "star" in mode
        ``per_spec`` each over the leader and one spec's vendors, else over all losses.
    antithetic : bool
        Whether vendor 2k of a tree or star differs from the leader by the opposite of what vendor
        2k - 1 does, and has its seed. With an even number of vendors the last has no opposite.

    Attributes
    ----------
    learning_rate, meta_learning_rate, probe_scale : float or 0-d array
        As given; may be set.
    marketplace : list of Spec
        The market. With other models or counts than at first, every method raises a RuntimeError.
    vendors : list of list of Vendor
        Per spec and vendor, a function of a batch ``(B, ...)``; for ``forward`` and ``produce``.
    spec_context : list of SpecContext
        Per spec, its seeds, deltas and learning rates.
    global_step : int
        Steps done; may be set.
    classes : sequence of int or None
        The classes that the losses' softmax runs over; None, as at first, for all. The losses
        leave other classes' logits alone, to be learnt later. Not kept by ``save``.
    plan : str
        As given; cannot be set.
    recorder : Recorder or None
        Told of every change of the weights before it happens; see ``marketplace.replay``.

    Notes
    -----
    Plan "node" disturbs activations instead of weights (node perturbation: Widrow & Lehr 1990,
    Flower & Jabri 1993). Every channel of a spec's convolutions and linear layers gets V - 1 probes
    on every sample: random signs are added to its sums, and the change of that sample's loss tells
    which way was up. With 2^k probes (2^k + 1 vendors), at least as many as a channel has pixels
    and norm parameters, what is learned of a sum is exact up to terms of the noise's order. A
    channel is followed alone through the next layer; only what lies behind runs anew: a probe of
    all 64 channels of the MNIST example's last convolution costs 35,072 operations a sample. Outer
    products with the layer's input give the weights' gradient; a norm learns with the layer that it
    follows. A spec with one vendor stays as it is, but the last layer, a linear one, always learns:
    its gradient is (softmax - one-hot) times its input. From the first trained spec on there are no
    branches, and behind its first convolution or linear layer no batch or layer norms and no
    grouped convolutions; norms before that stay as they are. Only the specs before run in bfloat16.
    Replicas are averaged, not summed. ``docs/node.md`` has the formula and what it costs.

    Threads may share an optimizer and its market: calls take turns, and answers given while another
    thread learns are of the weights before or behind a step. ``probe`` and ``step`` are two calls,
    between which another thread may have stepped; ``train_step`` is one.

    ``copy.deepcopy`` and ``pickle`` give an optimizer with a market of its own, on a device of the
    same name, that goes on with the same bits: what ``save`` keeps, where it may be called. Losses
    and batch statistics since the last step, recorders and clusters do not come along.

    Raises
    ------
    TypeError
        For arguments of another type.
    ValueError
        For rates that are negative or not finite, seeds of the wrong length, an unknown plan,
        device or dtype, upstream sampling without a tree, a meta learning rate or antithetic
        vendors without a tree or star, a meta learning rate with another update than "unit" or
        with antithetic vendors, a control variate without a scatter, another shaping than "z" with
        plan "node", or seeds of antithetic vendors that are not in pairs.
    """

    def __init__(
        self,
        marketplace: Sequence[Spec],
        learning_rate: Number,
        meta_learning_rate: Number | None = None,
        seeds: Sequence[ArrayLike] | None = None,
        probe_scale: Number | None = None,
        *,
        plan: str = "tree",
        device: str | Sequence[str] = "auto",
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        threads: int | None = None,
        max_memory_bytes: int | None = None,
        control_variate: bool = False,
        update: str | None = None,
        momentum: Number = 0.9,
        shaping: str = "z",
        antithetic: bool = False,
    ) -> None:
        super().__init__()
        self.marketplace = check_market(marketplace, "Optimizer")
        self.learning_rate = learning_rate
        self.meta_learning_rate = meta_learning_rate
        self.probe_scale = probe_scale
        self._plan = word(plan, "Optimizer", "plan")
        self._blueprint = Blueprint(self.marketplace)
        self._momentum = scalar(momentum, "Optimizer", "momentum")
        master = random.generator().seed64() if seed is None else seed_input(seed, "Optimizer")
        self._max_memory_bytes = max_memory_bytes
        engine = make_engine("Optimizer", device, dtype, threads, max_memory_bytes)
        self._market = make_market(self.marketplace, engine)
        self._native = _core.Optimizer(
            self._market,
            [spec.vendor_count for spec in self.marketplace],
            [spec.upstream_sampling for spec in self.marketplace],
            plan=plan,
            learning_rate=scalar(learning_rate, "Optimizer", "learning_rate"),
            probe_scale=self._number("probe_scale"),
            meta_learning_rate=self._number("meta_learning_rate"),
            seed=master,
            seeds=None if seeds is None else checked_seeds(seeds),
            control_variate=bool(control_variate),
            update=default_update(plan) if update is None else word(update, "Optimizer", "update"),
            momentum=self._momentum,
            shaping=word(shaping, "Optimizer", "shaping"),
            antithetic=bool(antithetic),
        )

    def __repr__(self) -> str:
        """Say which plan runs how many vendors where, and how far it is."""
        vendors = [spec.vendor_count for spec in self.marketplace]
        where = f"device={self.device!r}, step={self.global_step}"
        return f"{type(self).__name__}(plan={self.plan!r}, vendors={vendors}, {where})"

    # -- what it runs with -------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """The master seed."""
        return self._native.seed

    @property
    def generation(self) -> int:
        """How often the vendors were drawn anew."""
        return self._native.generation

    @property
    def device(self) -> str:
        """The device in use; several with commas between."""
        return self._market.engine.device

    @property
    def dtype(self) -> str:
        """What products are computed in."""
        return self._market.engine.dtype

    @property
    def threads(self) -> int:
        """Threads in use."""
        return self._market.engine.threads

    def flops_per_step(
        self,
        sample_shape: Sequence[int],
        batch_size: int,
        *,
        forward_pass: int = 1,
        marketplace_replica: int = 1,
    ) -> int:
        """Count the floating point operations of one step's forward passes.

        Parameters
        ----------
        sample_shape : sequence of int
            Shape of one sample, without the batch.
        batch_size : int
            Samples per minibatch.
        forward_pass, marketplace_replica : int
            Minibatches and draws per update, as for ``train_step``.

        Returns
        -------
        int
            Multiplications and additions of convolutions and products; those of the line search
            too, which a meta learning rate adds to the last draw. Of plan "node" also elementwise
            operations, eight for every sum that a probe disturbs or runs anew.

        Raises
        ------
        TypeError, ValueError
            For what is no shape of this market's samples, or counts below 1.
        """
        op = "flops_per_step"
        self._blueprint.check(self.marketplace)
        draws = integer(marketplace_replica, op, "marketplace_replica", 1)
        draws *= 2 if self.control_variate else 1  # the base weights' losses beside every draw's
        draws += 0 if self.meta_learning_rate is None else 1
        samples = integer(batch_size, op, "batch_size", 1)
        samples *= integer(forward_pass, op, "forward_pass", 1)
        shape = shape_input(sample_shape, op, "sample_shape")
        if self.plan == "node":
            return draws * samples * self._native.node_flops(shape)
        return draws * samples * self._market.flops(self._native.plan, shape)

    # -- training ----------------------------------------------------------------------------------

    @in_turn
    def step(
        self,
        loss: ArrayLike,
        paths: ArrayLike,
        unit_vector_mode: UnitVectorMode | str | None = None,
    ) -> None:
        """Update the weights along the direction of some losses, and draw new vendors.

        Under a meta learning rate, the batch of the last ``probe``, or the minibatches that were
        accumulated since, run a second time to find every spec's learning rate. After
        ``add_replica``, the direction is that of the sum of all replicas.

        Parameters
        ----------
        loss : array (P,)
            Losses of paths, such as those of ``probe``, or the mean that ``accumulate`` gives.
        paths : integer array (P, S)
            Their paths.
        unit_vector_mode : UnitVectorMode or its value, optional
            What the direction is divided by; ``whole`` for a scatter, else ``per_spec``, if not
            given.

        Raises
        ------
        TypeError, ValueError
            For other shapes or dtypes, or losses that are not finite. Nothing has changed then.
        RuntimeError
            For a line search without a ``probe`` before it.

        Warns
        -----
        RuntimeWarning
            If all losses are equal: the direction is zero then, and an update without momentum too.
        """
        losses, rows, mode = self._scored("step", loss, paths, unit_vector_mode)
        draws = self._drawn(losses, rows, mode, last=True)
        if self.meta_learning_rate is None:
            native = self._ready()
            self._record(draws, mode, present_rates(native, len(self.marketplace)))
            degenerate = native.step(losses, rows, mode)
        else:
            degenerate = self._search(losses, rows, mode, draws)
        self._end_update()
        warn_if(degenerate, "step")

    def _search(self, losses: F32, paths: I32, mode: str, draws: list[Draw | list[F32]]) -> bool:
        """Run the line search: scale the step per vendor, probe again, keep the best path's."""
        self._follow_vendors()
        if not self._minibatches:
            wanted = "a probe before every step of a line search"
            raise refusal(RuntimeError, "step", wanted, "none since the last step")
        native = self._ready()
        try:
            degenerate = native.start_search(losses, paths, mode)
            rates = native.best_rates(self._probe_again(native))
            self._record(draws, mode, np.array(rates, np.float32))
            native.end_search(rates)
        except BaseException:  # an interrupt too: the vendors are those of the probe again
            native.cancel_search()
            raise
        return degenerate

    # -- files and copies --------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what ``save`` keeps, and ``classes``."""
        return _state.rebuild, _state.take_apart(self)

    def save(self, path: FilePath) -> None:
        """Write weights and the whole state of the optimizer.

        The file is also a checkpoint for ``load_checkpoint`` and for the reference.

        Parameters
        ----------
        path : path-like
            Safetensors file to write or replace.

        Raises
        ------
        OSError
            For a file that cannot be written; an older file at ``path`` is then untouched.
        RuntimeError
            In the middle of an update: between ``update_lr_scales`` and ``update_seeds``, or
            between ``add_replica`` and ``step``.
        """
        _state.save(self, path)

    @classmethod
    def resume(
        cls,
        path: FilePath,
        marketplace: Sequence[Spec],
        *,
        device: str | Sequence[str] = "auto",
        threads: int | None = None,
        max_memory_bytes: int | None = None,
    ) -> "Optimizer":
        """Go on from a file of ``save``: further steps give the same bits as without a stop.

        Parameters
        ----------
        path : path-like
            The file.
        marketplace : sequence of Spec
            A market of the same layers and vendor counts; its weights are loaded.
        device, threads, max_memory_bytes
            As for ``Optimizer``.

        Returns
        -------
        Optimizer
            With the options that it was saved with; rates that were 0-d arrays are new tensors.

        Raises
        ------
        FileNotFoundError, OSError
            For a file that is missing or cannot be read.
        ValueError
            For a file that is truncated, holds no optimizer, or is of another market. Nothing has
            changed then.
        """
        return _state.resume(cls, path, marketplace, device, threads, max_memory_bytes)

"""Figures of learning curves, made without a display and without global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import refusal
from .._disk import FilePath
from ._runs import AXES, F64, Curve, Run, curves

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito (2008): told apart by colour-blind readers, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
_BLUE = _COLOURS[0]
_STYLES = ("-", "--", ":", "-.")
_GREY = "#57606a"
_PANEL = (4.6, 3.5)  # inches
_CHARACTERS_PER_INCH = 12  # of a legend
_MANY = 60  # points: from here on a curve is drawn smoothed, over a faint one
_TITLES = {
    "testing/accuracy": "test accuracy, %",
    "training/accuracy": "accuracy on the batch, %",
    "training/loss": "training loss (cross-entropy)",
    "training/lr": "learning rate",
    "training/gflops": "GFLOP/s",
    "testing/old_accuracy": "test accuracy on old classes, %",
    "testing/new_accuracy": "test accuracy on new classes, %",
}
_CONTINUAL = (
    ("test accuracy, %", "testing/old_accuracy", "testing/new_accuracy"),
    ("loss of the answers (cross-entropy)", "learning/old_loss", "learning/new_loss"),
)


def require_matplotlib() -> None:
    """Import matplotlib now, so that its absence shows before a training and not after.

    Raises
    ------
    RuntimeError
        matplotlib is not installed, or broken.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f'plots need matplotlib ({error}): install it with pip install "marketplace[plot]"'
        ) from error


def learning_curves(
    runs: Sequence[Run],
    *,
    x: str | Sequence[str] = "step",
    metrics: Sequence[str] = ("testing/accuracy", "training/loss"),
    title: str | None = None,
    subtitle: str | None = None,
    log_x: bool = False,
) -> Any:
    """Draw metrics against steps, work or time.

    Parameters
    ----------
    runs : sequence of Run
        What to draw. Runs with the same label become their mean at the steps that they share, with
        a band of one sample standard deviation.
    x : {"step", "flops", "seconds"} or several of them
        What to draw against; a row of panels for each.
    metrics : sequence of str
        What to draw, a column of panels for each; those that no run has are left out.
    title, subtitle : str, optional
        Lines above the picture.
    log_x : bool
        Whether x has a logarithmic scale.

    Returns
    -------
    matplotlib.figure.Figure
        Of a size that fits its panels.

    Raises
    ------
    RuntimeError
        Without matplotlib.
    ValueError
        For an unknown x, or if no run has any of the metrics, or that x.
    """
    axes = (x,) if isinstance(x, str) else tuple(x)
    for axis in axes:
        if axis not in AXES:
            raise refusal(ValueError, "plot", f"x of {', '.join(AXES)}", repr(axis))
    known = [name for name in metrics if any(curves(runs, name, axis) for axis in axes)]
    if not known or not axes:
        wanted = f"runs with {' or '.join(metrics)} against {' or '.join(axes)}"
        raise refusal(ValueError, "plot", wanted, _names(runs))
    figure, panels = _panels(len(axes), len(known), title, subtitle)
    looks = _looks(runs)
    for axis, row in zip(axes, panels, strict=True):
        for name, panel in zip(known, row, strict=True):
            drawn = curves(runs, name, axis)
            scale, unit = _unit(axis, drawn)
            for curve in drawn:
                _draw(panel, curve, scale, *looks[curve.label], _label(curve))
            _finish(panel, unit, _TITLES.get(name, name), log_x)
            if name == "testing/accuracy" and len(looks) == 1 and drawn:
                _state_result(panel, drawn[0])
    if len(looks) > 1:
        _legend(figure, _entries(panels))
    return figure


def continual_curves(
    runs: Sequence[Run],
    *,
    x: str = "step",
    title: str | None = None,
    subtitle: str | None = None,
) -> Any:
    """Draw what continual learning gains on new classes, and loses on old ones.

    Parameters
    ----------
    runs : sequence of Run
        Of runs that have ``testing/old_accuracy`` and ``testing/new_accuracy``; averaged by label,
        as by ``learning_curves``.
    x : {"step", "flops", "seconds"}
        What to draw against.
    title, subtitle : str, optional
        Lines above the picture.

    Returns
    -------
    matplotlib.figure.Figure
        New classes in solid lines, old ones in dashed.

    Raises
    ------
    RuntimeError
        Without matplotlib.
    ValueError
        For an unknown x, or if no run has old and new accuracies.
    """
    if x not in AXES:
        raise refusal(ValueError, "plot", f"x of {', '.join(AXES)}", repr(x))
    pairs = [pair for pair in _CONTINUAL if all(curves(runs, name, x) for name in pair[1:])]
    if not pairs:
        wanted = f"runs with testing/old_accuracy and testing/new_accuracy against {x}"
        raise refusal(ValueError, "plot", wanted, _names(runs))
    figure, panels = _panels(1, len(pairs), title, subtitle)
    looks = _looks(runs)
    for (heading, old, new), panel in zip(pairs, panels[0], strict=True):
        scale, unit = _unit(x, curves(runs, new, x))
        for kind, name, style, own in (("new", new, "-", _COLOURS[1]), ("old", old, "--", _BLUE)):
            for curve in curves(runs, name, x):
                alone = len(looks) == 1  # then old and new differ in colour as well
                colour = own if alone else looks[curve.label][0]
                label = f"{kind} classes" if alone else f"{_label(curve)}, {kind}"
                _draw(panel, curve, scale, colour, style, label)
        _finish(panel, unit, heading, False)
    _legend(figure, _entries(panels))
    return figure


def save(figure: Any, path: FilePath) -> None:
    """Write a figure.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : path-like
        The picture; its ending tells the format (.png, .svg, .pdf).

    Raises
    ------
    OSError
        For a file that cannot be written.
    ValueError
        For another ending.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        wanted = f"a name ending in {', '.join(FORMATS)}"
        raise refusal(ValueError, "plot", wanted, str(target))
    figure.savefig(target)


# -- panels ----------------------------------------------------------------------------------------


def _panels(rows: int, columns: int, title: str | None, subtitle: str | None) -> tuple[Any, Any]:
    require_matplotlib()
    # The Figure class by itself needs no display and changes no global state, unlike pyplot.
    from matplotlib.figure import Figure

    extra = 0.35 * sum(text is not None for text in (title, subtitle)) + 0.3
    size = (max(columns * _PANEL[0], 6.4), rows * _PANEL[1] + extra)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    lines = [text for text in (title, subtitle) if text]
    if lines:
        # constrained layout keeps free what the title takes: as many lines as there will be
        figure.suptitle("\n".join([title or "", *([" "] if subtitle else [])]), fontweight="bold")
    if subtitle:
        top = 1 - 0.33 / size[1]
        figure.text(0.5, top, subtitle, ha="center", va="top", fontsize=9, color=_GREY)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _looks(runs: Sequence[Run]) -> dict[str, tuple[str, str]]:
    """Give each label a colour, and another line style where there are more labels than colours."""
    labels = dict.fromkeys(run.label for run in runs)
    return {
        label: (_COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)])
        for i, label in enumerate(labels)
    }


def _label(curve: Curve) -> str:
    return curve.label if curve.count == 1 else f"{curve.label} (mean of {curve.count} ± σ)"


def _draw(panel: Any, curve: Curve, scale: float, colour: str, style: str, label: str) -> None:
    many = curve.x.size > _MANY
    x, y, spread = curve.x / scale, curve.mean, curve.deviation
    if many:
        if curve.count == 1:
            panel.plot(x, y, color=colour, linewidth=0.6, alpha=0.25)
        y, spread = _smooth(y), _smooth(spread)
    marker: dict[str, Any] = {} if many else {"marker": "o", "markersize": 3}
    panel.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=label, **marker)
    if curve.count > 1:
        panel.fill_between(x, y - spread, y + spread, color=colour, alpha=0.15, linewidth=0)


def _smooth(values: F64) -> F64:
    """Give the running mean over a twentieth of the curve, over fewer points at its ends."""
    width = max(3, values.size // 20) | 1
    kernel = np.ones(width)
    smoothed: F64 = np.convolve(values, kernel, "same") / np.convolve(
        np.ones(values.size), kernel, "same"
    )
    return smoothed


def _finish(panel: Any, label: str, title: str, log_x: bool) -> None:
    panel.set_xlabel(label)
    if log_x:
        panel.set_xscale("log")
    else:
        panel.set_xlim(left=0)
    panel.set_title(title, fontsize=10, loc="left")
    panel.grid(True, alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _unit(axis: str, drawn: Sequence[Curve]) -> tuple[float, str]:
    """Give what to divide x by, and what to call it then."""
    highest = max((float(curve.x.max()) for curve in drawn), default=0.0)
    if axis == "step":
        return 1.0, "step"
    if axis == "seconds":
        units = ((3 * 3600.0, 3600.0, "h"), (300.0, 60.0, "min"), (0.0, 1.0, "s"))
        name = "training time"
    else:
        units = ((1e15, 1e15, "PFLOP"), (1e12, 1e12, "TFLOP"), (0.0, 1e9, "GFLOP"))
        name = "work"
    _, scale, unit = next(entry for entry in units if highest >= entry[0])
    return scale, f"{name}, {unit}"


def _state_result(panel: Any, curve: Curve) -> None:
    """Write it into the corner that a learning curve leaves empty."""
    text = f"{curve.mean[-1]:.2f} %"
    if curve.count > 1:
        text = f"{curve.mean[-1]:.2f} ± {curve.deviation[-1]:.2f} %"
    panel.text(
        0.97, 0.06, f"{text} at the end", transform=panel.transAxes, ha="right", fontweight="bold"
    )


def _legend(figure: Any, entries: dict[str, Any]) -> None:
    widest = max(map(len, entries)) + 7  # characters, with handle and gap
    columns = int(figure.get_figwidth() * _CHARACTERS_PER_INCH) // widest
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=max(1, min(columns, len(entries))),
        frameon=False,
        fontsize=9,
    )


def _entries(panels: Any) -> dict[str, Any]:
    """Give what the legend of all panels shows, each label once."""
    found: dict[str, Any] = {}
    for panel in panels.flat:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return found


def _names(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in (*run.metrics, *run.axes)})
    return ", ".join(names) if names else "none"

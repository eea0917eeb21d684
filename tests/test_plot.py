"""Learning curves: what is read, averaged and drawn."""

import json
import sys

import numpy as np
import pytest
from marketplace import __main__, plot
from marketplace.plot._runs import curves

matplotlib = pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


def run(label="run", shift=0.0, steps=(1, 2, 3, 4), **metrics):
    steps = np.array(steps)
    metrics = metrics or {"testing/accuracy": 10 * steps + shift, "training/loss": 1 / steps}
    return plot.make_run(label, metrics, step=steps, flops=steps * 2e12, seconds=steps * 100)


def lines(panel):
    """Thick curves of a panel: label to (x, y)."""
    return {
        line.get_label(): tuple(np.asarray(values) for values in line.get_data())
        for line in panel.lines
        if not line.get_label().startswith("_")
    }


# Reading

ROWS = [
    {"step": 1, "seconds": 0.5, "flops": 10.0, "training/loss": 2.5},
    {"step": 2, "seconds": 1.5, "flops": 20.0, "training/loss": 1.5, "testing/accuracy": 40.0},
]


def test_a_log_of_json_lines(tmp_path):
    path = tmp_path / "star.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"step": 3, "tr')
    found = plot.load_run(path)
    assert found.label == "star"
    assert {name: list(values) for name, values in found.axes.items()} == {
        "step": [1, 2],
        "flops": [10, 20],
        "seconds": [0.5, 1.5],
    }
    assert list(found.metrics["training/loss"]) == [2.5, 1.5]
    assert np.isnan(found.metrics["testing/accuracy"][0])


def test_a_log_of_values(tmp_path):
    path = tmp_path / "star.csv"
    path.write_text("step,seconds,training/loss,testing/accuracy\n1,0.5,2.5,\n2,1.5,1.5,40\n")
    found = plot.load_run(path, "another name")
    assert found.label == "another name" and set(found.axes) == {"step", "seconds"}
    assert list(found.metrics["testing/accuracy"])[1] == 40


def test_a_report(tmp_path):
    path = tmp_path / "report.json"
    history = [{"step": 5, "loss": None, "test_accuracy": 30}]
    history.append({"step": 10, "loss": 1.5, "test_accuracy": 60})
    content = {"history": history, "flops_per_step": 7, "steps": 10, "seconds": 20.0}
    path.write_text(json.dumps(content))
    found = plot.load_run(path)
    assert list(found.axes["flops"]) == [35, 70] and list(found.axes["seconds"]) == [10, 20]
    assert list(found.metrics["testing/accuracy"]) == [30, 60]
    assert np.isnan(found.metrics["training/loss"][0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "expected a report with a history"),
        ("a.json", "[3]", "expected a report with a history"),
        ("a.json", '{"history": [3]}', "expected points with a step"),
        ("a.json", '{"history": []}', "expected a log with steps, received none"),
        ("a.jsonl", "", "expected a log with steps, received none"),
        ("a.jsonl", "Dear diary\n", "expected a log that begins with"),
        ("a.jsonl", '{"step": 2}\n{"step": 2}\n', "expected ascending steps"),
    ],
)
def test_a_file_of_something_else(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        plot.load_run(tmp_path / name)


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match=r"training/loss of shape \(2,\), received \(3,\)"):
        plot.make_run("run", {"training/loss": [1, 2, 3]}, step=[1, 2])
    with pytest.raises(ValueError, match=r"flops of shape \(N,\), received \(\)"):
        plot.make_run("run", {}, step=[1, 2], flops=3)
    with pytest.raises(TypeError, match="step of a real dtype"):
        plot.make_run("run", {}, step=["one"])


# Averaging


def test_runs_with_one_label_are_averaged():
    runs = [run("star", 0), run("tree", 50), run("star", 4), run("star", 2)]
    star, tree = curves(runs, "testing/accuracy", "step")
    assert (star.label, star.count, tree.label, tree.count) == ("star", 3, "tree", 1)
    assert list(star.mean) == [12, 22, 32, 42] and list(star.deviation) == [2, 2, 2, 2]
    assert list(tree.mean) == [60, 70, 80, 90] and not tree.deviation.any()


def test_only_steps_that_all_runs_have_are_averaged():
    runs = [
        run("star", steps=(1, 2, 4), **{"testing/accuracy": [1, 2, 4]}),
        run("star", steps=(2, 3, 4), **{"testing/accuracy": [4, 5, np.nan]}),
    ]
    (star,) = curves(runs, "testing/accuracy", "flops")
    assert list(star.x) == [4e12] and list(star.mean) == [3]


# Drawing


@pytest.mark.parametrize(
    ("x", "label", "ends"),
    [("step", "step", 4), ("flops", "work, TFLOP", 8), ("seconds", "training time, min", 400 / 60)],
)
def test_panels_and_units(x, label, ends):
    figure = plot.learning_curves([run()], x=x, title="A run", subtitle="of no importance")
    accuracy, loss = figure.axes
    assert accuracy.get_title(loc="left") == "test accuracy, %"
    assert loss.get_title(loc="left") == "training loss (cross-entropy)"
    assert accuracy.get_xlabel() == loss.get_xlabel() == label
    drawn_x, drawn_y = lines(accuracy)["run"]
    assert drawn_x[-1] == pytest.approx(ends) and list(drawn_y) == [10, 20, 30, 40]
    assert [text.get_text() for text in accuracy.texts] == ["40.00 % at the end"]


def test_groups_have_bands_and_a_legend():
    figure = plot.learning_curves([run("star"), run("star", 2), run("tree", 5)])
    assert set(lines(figure.axes[0])) == {"star (mean of 2 ± σ)", "tree"}
    assert len(figure.axes[0].collections) == 1
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["star (mean of 2 ± σ)", "tree"]
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert len(colours) == 2


def test_several_x_and_other_metrics():
    figure = plot.learning_curves(
        [run()], x=["step", "flops", "seconds"], metrics=["training/loss"]
    )
    assert [panel.get_xlabel() for panel in figure.axes] == [
        *("step", "work, TFLOP", "training time, min"),
    ]


def test_a_long_noisy_curve_is_smoothed():
    noise = np.random.default_rng(0).normal(size=500)
    loss = plot.make_run("run", {"training/loss": noise}, step=np.arange(1, 501))
    (panel,) = plot.learning_curves([loss]).axes
    faint, thick = panel.lines
    assert np.array_equal(faint.get_ydata(), noise)
    assert thick.get_ydata().std() < 0.4 * noise.std()
    assert thick.get_ydata().mean() == pytest.approx(noise.mean(), abs=0.02)


def test_continual_curves():
    metrics = {"testing/old_accuracy": [96, 95], "testing/new_accuracy": [0, 90]}
    alone = plot.continual_curves([run("a", steps=(1, 2), **metrics)])
    assert set(lines(alone.axes[0])) == {"new classes", "old classes"} and len(alone.axes) == 1
    losses = {"learning/old_loss": [np.nan, 1], "learning/new_loss": [np.nan, 2]}
    runs = [run(label, steps=(1, 2), **metrics, **losses) for label in "aab"]
    both = plot.continual_curves(runs)
    assert set(lines(both.axes[1])) == {
        *("a (mean of 2 ± σ), new", "a (mean of 2 ± σ), old", "b, new", "b, old"),
    }


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="x of step, flops, seconds, received 'epochs'"):
        plot.learning_curves([run()], x="epochs")
    with pytest.raises(ValueError, match="runs with testing/accuracy or training/loss against st"):
        plot.learning_curves([])
    with pytest.raises(ValueError, match="old_accuracy and testing/new_accuracy against step, rec"):
        plot.continual_curves([run()])
    with pytest.raises(ValueError, match="a name ending in .png, .svg, .pdf, received c.gif"):
        plot.save(plot.learning_curves([run()]), "c.gif")


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RuntimeError, match=r"marketplace\[plot\]"):
        plot.learning_curves([run()])


# Command line


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        rows = [row | {"training/loss": row["training/loss"] + seed} for row in ROWS]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{seed}.jsonl").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["0.jsonl"],
        ["star=0.jsonl", "star=1.jsonl", "tree=2.jsonl", "--x", "step,flops,seconds", "--log-x"],
        ["0.jsonl", "--metrics", "training/loss", "--title", "Loss"],
    ],
)
def test_command(logs, arguments, capsys):
    assert __main__.main(["plot", *arguments, "-o", "out.png"]) == 0
    assert (logs / "out.png").read_bytes()[:8] == PNG
    assert capsys.readouterr() == ("", "")


def test_command_draws_continual_runs(logs):
    points = [{"step": s, "old_accuracy": 90, "new_accuracy": 5 * s} for s in (1, 2)]
    (logs / "c.json").write_text(json.dumps({"history": points}))
    assert __main__.main(["plot", "c.json", "-o", "out.svg"]) == 0
    assert "new classes" in (logs / "out.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "No such file"),
        (["0.jsonl", "-o", "out.gif"], "expected a name ending in"),
        (["0.jsonl", "--x", "epochs"], "expected x of step, flops, seconds"),
        (["0.jsonl", "--metrics", "training/joy"], "expected runs with training/joy"),
    ],
)
def test_command_errors_are_one_line(logs, arguments, message, capsys):
    assert __main__.main(["plot", "-o", "out.png", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("marketplace plot: error: ") and message in error
    assert error.count("\n") == 1

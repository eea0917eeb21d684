"""MLflow and TensorBoard: with the real packages where they are, and without them."""

import sys
import warnings

import pytest
from marketplace.callbacks import MLflowLogger, TensorBoardLogger, Watch
from markets import MLP, MLP_SHAPE, VENDORS, batch, build, optimizer


def train(callbacks, steps, first=0, **options):
    opt = optimizer(build(MLP, VENDORS), seed=3)
    opt.global_step = first
    with Watch(opt, callbacks, **options) as watch:
        for step in range(steps):
            loss, _ = opt.train_step(*batch(MLP_SHAPE, seed=step))
            watch.step(loss[0], {"testing/accuracy": 10.0 * step} if step % 3 == 0 else None)


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [
        (MLflowLogger, "mlflow", "mlflow"),
        (lambda: TensorBoardLogger("x"), "tensorboard.summary.writer.event_file_writer", None),
    ],
    ids=["mlflow", "tensorboard"],
)
def test_a_missing_package_names_the_extra(monkeypatch, make, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    extra = extra or "tensorboard"
    with pytest.raises(RuntimeError, match=rf'pip install "marketplace\[{extra}\]"'):
        make()


# MLflow


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    package.set_tracking_uri((tmp_path / "runs").as_uri())
    package.set_experiment("tests")
    yield package
    package.set_tracking_uri("")


def history(mlflow, run_id, name):
    return [(m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run_id, name)]


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_mlflow_gets_metrics_and_settings(mlflow):
    logger = MLflowLogger("digits", "a run", every=2)
    train([logger], 5, flops_per_step=9, settings={"lr": 0.3, "note": "x" * 9000})
    run = mlflow.get_run(logger.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "a run"
    assert run.data.params["lr"] == "0.3" and set(run.data.params["note"]) == {"x"}
    assert history(mlflow, logger.run_id, "testing/accuracy") == [(1, 0.0), (4, 30.0)]
    assert [step for step, _ in history(mlflow, logger.run_id, "training/loss")] == [1, 2, 4]
    assert set(run.data.metrics) == {
        *("training/loss", "training/lr", "training/gflops", "testing/accuracy"),
    }
    assert mlflow.get_experiment_by_name("digits").experiment_id == run.info.experiment_id
    assert mlflow.active_run() is None


def test_mlflow_uses_the_active_run(mlflow):
    with mlflow.start_run() as run:
        logger = MLflowLogger()
        train([logger], 2)
        assert logger.run_id == run.info.run_id and mlflow.active_run() is not None
    assert len(history(mlflow, run.info.run_id, "training/loss")) == 1


def test_mlflow_continues_a_run(mlflow):
    first = MLflowLogger(every=1)
    train([first], 2, settings={"step_count": 2, "lr": 0.3})
    again = MLflowLogger(run_id=first.run_id, every=1)
    train([again], 2, first=2, settings={"step_count": 4, "seed": 1})
    assert [s for s, _ in history(mlflow, first.run_id, "training/loss")] == [1, 2, 3, 4]
    params = mlflow.get_run(first.run_id).data.params
    assert params == {"step_count": "2", "lr": "0.3", "seed": "1"}


def test_mlflow_refuses_an_unknown_run_before_the_training(mlflow):
    with pytest.raises(OSError, match="MLflow: .*" + "0" * 32):
        train([MLflowLogger(run_id="0" * 32)], 1)


def test_an_error_of_mlflow_costs_the_log_only(mlflow, monkeypatch):
    logger, seen = MLflowLogger(every=1), []

    def refuse(*arguments, **keywords):
        raise mlflow.exceptions.MlflowException("out of order")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    with pytest.warns(RuntimeWarning, match="step 1: MLflowLogger ends: MLflow: out of order"):
        train([logger, seen.append], 2)
    assert len(seen) == 2
    mlflow.end_run()


# TensorBoard


def events(directory):
    """Read scalars as TensorBoard shows them: by tag, (step, value)."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(directory))
    reader.Reload()
    tags = reader.Tags()["scalars"] + reader.Tags()["tensors"]
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in tags}


@pytest.fixture
def tensorboard():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorboard.summary.writer.event_file_writer")


def test_tensorboard_gets_the_metrics(tensorboard, tmp_path):
    train([TensorBoardLogger(tmp_path / "new" / "folder")], 4)
    found = events(tmp_path / "new" / "folder")
    assert found["testing/accuracy"] == [(1, 0.0), (4, 30.0)]
    assert [step for step, _ in found["training/loss"]] == [1, 2, 3, 4]
    assert set(found) == {"training/loss", "training/lr", "testing/accuracy"}


def test_tensorboard_shows_a_resumed_run_once(tensorboard, tmp_path):
    train([TensorBoardLogger(tmp_path)], 4)
    train([TensorBoardLogger(tmp_path)], 3, first=2)
    assert [step for step, _ in events(tmp_path)["training/loss"]] == [1, 2, 3, 4, 5]


def test_tensorboard_where_there_is_a_file(tensorboard, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        train([TensorBoardLogger(tmp_path / "file")], 1)


@pytest.mark.parametrize("every", [0, -1])
def test_every_is_at_least_one(tensorboard, every):
    with pytest.raises(ValueError, match="every of at least 1"):
        TensorBoardLogger("x", every=every)

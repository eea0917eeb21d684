"""Checkpoints: the reference's layout both ways, atomic writes, and resuming to the same bits."""

import builtins
import errno
import io
import os

import marketplace as mp
import numpy as np
import pytest
from marketplace import Tensor, _disk, checkpoint, nn, utils
from markets import MLP, MLP_SHAPE, batch, build, optimizer, same_bits, same_states, states
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

VENDORS = (3, 2, 4)


def trained(**options):
    """Give a market, an optimizer and the path-independent batch that it trains on."""
    built = build(MLP, VENDORS, sampling=options.pop("sampling", None))
    return built, optimizer(built, seed=options.pop("seed", 7), **options)


def save_plain(built, opt, path):
    checkpoint.write_checkpoint(built.specs, opt.global_step, path)


def save_full(built, opt, path):
    opt.save(path)


def load_plain(path, specs):
    return checkpoint.load_checkpoint(specs, path)


def load_full(path, specs):
    return mp.Optimizer.resume(path, specs).global_step


writers = pytest.mark.parametrize("save", [save_plain, save_full])
kinds = pytest.mark.parametrize("save, load", [(save_plain, load_plain), (save_full, load_full)])

# -- the reference's layout ------------------------------------------------------------------------


@writers
def test_layout(tmp_path, save):
    built, opt = trained()
    opt.train_step(*batch(MLP_SHAPE))
    save(built, opt, tmp_path / "market.safetensors")
    tensors = load_file(tmp_path / "market.safetensors")
    assert tensors["global_step"].shape == () and tensors.pop("global_step") == 1
    kept = {key: v for key, v in tensors.items() if not key.startswith("optimizer.")}
    expected = {
        f"spec.{index}.{key}": value
        for index, spec in enumerate(built.specs)
        for key, value in spec.model.state_dict().items()
    }
    assert set(kept) == set(expected)
    for key, value in expected.items():
        same_bits(kept[key], value)
    assert (len(kept) == len(tensors)) == (save is save_plain)


@writers
def test_equal_states_give_equal_files(tmp_path, save):
    for name in range(8):
        built, opt = trained()
        save(built, opt, tmp_path / str(name))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def reference_file(path, built, dtype=np.float32, **extra):
    """Write what the reference writes: float tensors, and an int32 scalar as the step."""
    rng = np.random.default_rng(4)
    arrays = {
        f"spec.{index}.{key}": rng.normal(size=value.shape).astype(dtype)
        for index, spec in enumerate(built.specs)
        for key, value in spec.model.state_dict().items()
    }
    save_file(arrays | {"global_step": np.array(123, np.int32)} | extra, path)
    return arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_file_of_the_reference_loads(tmp_path, dtype):
    built, _ = trained()
    arrays = reference_file(tmp_path / "theirs.safetensors", built, dtype)
    assert checkpoint.load_checkpoint(built.specs, tmp_path / "theirs.safetensors") == 123
    for index, spec in enumerate(built.specs):
        for key, value in spec.model.state_dict().items():
            same_bits(value, arrays[f"spec.{index}.{key}"].astype(np.float32))


def test_a_full_file_is_a_checkpoint_too(tmp_path):
    built, opt = trained()
    opt.train_step(*batch(MLP_SHAPE))
    opt.save(tmp_path / "full")
    other = build(MLP, VENDORS, seed=9)
    assert checkpoint.load_checkpoint(other.specs, tmp_path / "full") == 1
    same_states(states(other), states(built))


def test_spellings_of_the_reference(tmp_path):
    built, _ = trained()
    path = tmp_path / "a.safetensors"
    utils.write_checkpoint(marketplace=built.specs, global_step=5, output_filepath=path)
    assert utils.load_checkpoint(marketplace=built.specs, input_filepath=str(path)) == 5


def test_batch_norm_statistics_travel(tmp_path):
    def market():
        model = nn.Model(nn.Linear(6, 4), nn.BatchNorm(4), nn.relu, nn.Linear(4, 3))
        return [mp.Spec(model, 4)]

    specs, others = market(), market()
    opt = mp.Optimizer(specs, 0.2, seed=1)
    for _ in range(3):
        opt.train_step(*batch(MLP_SHAPE))
    checkpoint.write_checkpoint(specs, 3, tmp_path / "bn")
    tensors = load_file(tmp_path / "bn")
    same_bits(tensors["spec.0.layers.1.num_batches_tracked"], np.array(3, np.int64))
    assert checkpoint.load_checkpoint(others, tmp_path / "bn") == 3
    for key, value in specs[0].model.state_dict().items():
        same_bits(others[0].model.state_dict()[key], value)


# -- a failing write -------------------------------------------------------------------------------


class FullDisk(io.FileIO):
    """A file that takes a few bytes and then finds the disk full."""

    def write(self, data):
        super().write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk(monkeypatch):
    monkeypatch.setattr(
        _disk, "open", lambda path, mode, opener: FullDisk(path, "xb"), raising=False
    )


def failing(name, error):
    def install(monkeypatch):
        def fail(*args):
            raise error

        monkeypatch.setattr(os, name, fail)

    return install


FAILURES = {
    "write": (full_disk, OSError),
    "fsync": (failing("fsync", OSError(errno.EIO, os.strerror(errno.EIO))), OSError),
    "replace": (failing("replace", PermissionError(errno.EACCES, "no")), PermissionError),
    "interrupt": (failing("fsync", KeyboardInterrupt()), KeyboardInterrupt),
}


@writers
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch, save, failure):
    built, opt = trained()
    path = tmp_path / "market.safetensors"
    save(built, opt, path)
    old, before = path.read_bytes(), states(built)
    opt.train_step(*batch(MLP_SHAPE))
    after = states(built)
    install, error = FAILURES[failure]
    with monkeypatch.context() as patched, pytest.raises(error) as caught:
        install(patched)
        save(built, opt, path)
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == [path.name]
    same_states(states(built), after)
    assert checkpoint.load_checkpoint(built.specs, path) == 0
    same_states(states(built), before)


def test_the_new_file_is_complete_before_it_gets_its_name(tmp_path, monkeypatch):
    built, opt = trained()
    seen = []
    replace = os.replace

    def look(source, target):
        assert os.path.dirname(source) == os.path.dirname(target) == str(tmp_path)
        with safe_open(source, framework="numpy") as file:
            seen.extend(file.keys())
        assert seen_sync, "renamed before it was flushed to the disk"
        replace(source, target)

    seen_sync = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: seen_sync.append(fd) or sync(fd))
    monkeypatch.setattr(os, "replace", look)
    save_full(built, opt, tmp_path / "market.safetensors")
    assert "global_step" in seen and os.listdir(tmp_path) == ["market.safetensors"]


def test_relative_paths_and_the_usual_permissions(tmp_path, monkeypatch):
    built, opt = trained()
    monkeypatch.chdir(tmp_path)
    save_full(built, opt, "here.safetensors")
    with builtins.open("usual", "w"):
        pass
    assert os.stat("here.safetensors").st_mode == os.stat("usual").st_mode
    assert mp.Optimizer.resume("here.safetensors", built.specs).global_step == 0


# -- a file that does not fit ----------------------------------------------------------------------


@pytest.fixture
def unchanged():
    built, _ = trained()
    before = states(built)
    yield built
    same_states(states(built), before)


def refused(load, path, specs, *words):
    with pytest.raises(ValueError, match=r"expected .+ received") as caught:
        load(path, specs)
    for word in (str(path), *words):
        assert word in str(caught.value)


@kinds
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_truncated(tmp_path, unchanged, save, load, share):
    path = tmp_path / "cut"
    built, opt = trained(seed=1)
    save(built, opt, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(load, path, unchanged.specs)


@kinds
@pytest.mark.parametrize("content", [b"PK\x03\x04", b"{}", b"\x00" * 64, b"\xff" * 4096])
def test_foreign_bytes(tmp_path, unchanged, save, load, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    refused(load, path, unchanged.specs)


@pytest.mark.parametrize(
    "extra, word",
    [
        ({"spec.0.layers.0.bias": np.zeros(6, np.float32)}, "spec.0.layers.0.bias"),
        ({"spec.0.layers.0.bias": np.zeros(5, np.int32)}, "floating"),
        ({"spec.3.layers.0.bias": np.zeros(5, np.float32)}, "spec.3.layers.0.bias"),
        ({"something": np.zeros(5, np.float32)}, "something"),
        ({"global_step": np.array(-1)}, "global_step"),
        ({"global_step": np.array(1.5)}, "global_step"),
        ({"global_step": np.zeros(2, np.int64)}, "global_step"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, unchanged, extra, word):
    path = tmp_path / "odd"
    reference_file(path, unchanged, **extra)
    refused(load_plain, path, unchanged.specs, word)


BAD_SETTINGS = ["", "[]", "{}", '{"version": 1}', '{"version": 99}', '{"version": 1, "rates": 3}']


def test_metadata_that_does_not_fit(tmp_path, unchanged):
    built, opt = trained(seed=1)
    opt.save(tmp_path / "good")
    tensors = load_file(tmp_path / "good")
    for index, settings in enumerate(BAD_SETTINGS):
        path = tmp_path / f"bad{index}"
        save_file(tensors, path, metadata={"optimizer": settings})
        refused(load_full, path, unchanged.specs)


@pytest.mark.parametrize("name", ["seeds.1", "amplitudes", "learning_rates"])
def test_state_that_does_not_fit(tmp_path, unchanged, name):
    built, opt = trained(seed=1)
    opt.save(tmp_path / "good")
    with safe_open(tmp_path / "good", framework="numpy") as file:
        metadata = file.metadata()
    for index, change in enumerate([None, np.zeros(9, np.float32), np.zeros((2, 2), np.uint64)]):
        tensors = load_file(tmp_path / "good")
        del tensors[f"optimizer.{name}"]
        if change is not None:
            tensors[f"optimizer.{name}"] = change
        path = tmp_path / f"bad{index}"
        save_file(tensors, path, metadata=metadata)
        refused(load_full, path, unchanged.specs)


def test_a_plain_checkpoint_holds_no_optimizer(tmp_path, unchanged):
    save_plain(*trained(seed=1), tmp_path / "plain")
    refused(load_full, tmp_path / "plain", unchanged.specs, "Optimizer.save")


# -- resuming --------------------------------------------------------------------------------------

RUNS = {
    "tree": {},
    "sampled": {"sampling": [0, 2, 3]},
    "star": {"plan": "star"},
    "scatter": {"plan": "scatter"},
    "control-variate": {"plan": "scatter", "control_variate": True},
    "meta": {"meta_learning_rate": 0.5},
    "meta-star": {"plan": "star", "meta_learning_rate": 0.5},
    "bfloat16": {"dtype": "bfloat16"},
    "tensor-rates": {"learning_rate": Tensor(0.3), "probe_scale": Tensor(0.4)},
}


def train(opt, first, last):
    """Train with decaying rates, on a batch of its own for every step."""
    for step in range(first, last):
        opt.train_step(*batch(MLP_SHAPE, seed=step))
        if isinstance(opt.learning_rate, Tensor):
            opt.learning_rate.assign(opt.learning_rate * (1 - 1e-2))
        elif opt.meta_learning_rate is None:
            opt.learning_rate *= 1 - 1e-2
        else:
            opt.meta_learning_rate *= 1 - 1e-2


@pytest.mark.parametrize("name", RUNS)
def test_resuming_gives_the_same_bits(tmp_path, name):
    def options():
        return {k: Tensor(v) if isinstance(v, Tensor) else v for k, v in RUNS[name].items()}

    straight, opt = trained(**options())
    train(opt, 0, 9)

    first, before = trained(**options())
    train(before, 0, 5)
    before.save(tmp_path / "at5")
    second = build(MLP, VENDORS, seed=99, sampling=options().get("sampling"))
    after = mp.Optimizer.resume(tmp_path / "at5", second.specs, threads=2)
    assert after.global_step == 5
    assert (after.plan, after.dtype, after.seed) == (before.plan, before.dtype, before.seed)
    assert after.control_variate == before.control_variate == (name == "control-variate")
    same_states(states(second), states(first))
    train(after, 5, 9)

    assert after.global_step == opt.global_step == 9
    same_states(states(second), states(straight))
    for mine, theirs in zip(after.spec_context, opt.spec_context, strict=True):
        same_bits(mine.seeds, theirs.seeds)
        assert mine.learning_rate == theirs.learning_rate
    x, y = batch(MLP_SHAPE, seed=77)
    for mine, theirs in zip(after.probe(x, y), opt.probe(x, y), strict=True):
        same_bits(mine, theirs)


def test_rates_come_back_as_what_they_were(tmp_path):
    built, opt = trained(learning_rate=Tensor(0.3), probe_scale=0.1)
    opt.save(tmp_path / "a")
    again = mp.Optimizer.resume(tmp_path / "a", built.specs)
    assert type(again.learning_rate) is Tensor and again.learning_rate.dtype == np.float32
    assert again.learning_rate.item() == opt.learning_rate.item()
    assert again.probe_scale == 0.1 and again.meta_learning_rate is None


def test_a_line_search_under_way_is_not_saved(tmp_path):
    built, opt = trained(meta_learning_rate=0.5)
    opt.update_lr_scales(opt.compute_direction_vectors(*opt.probe(*batch(MLP_SHAPE))))
    with pytest.raises(RuntimeError, match=r"save: expected .+ received a line search under way"):
        opt.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    opt.update_seeds()
    opt.save(tmp_path / "a")

"""The ResNet-18 example: its network, its data, a few steps of a narrow one."""

import json

import numpy as np
import pytest
import reference
from marketplace import data
from marketplace.data import images
from marketplace.examples import resnet18
from marketplace.training import straight_forward

NARROW = ["--width", "2", "--vendors", "2", "--batch-size", "2", "--threads", "1", "--quiet"]


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Synthetic images by the dozen, not by the thousand."""
    original = data.synthetic_images
    monkeypatch.setattr(resnet18, "synthetic_images", lambda size: original(size, train=12, test=6))


def run(*arguments):
    return resnet18.main([*NARROW, *map(str, arguments)])


def run_json(tmp_path, *arguments):
    assert run(*arguments, "--json", tmp_path / "out.json") == 0
    return json.loads((tmp_path / "out.json").read_text())


# -- the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["depth-5", "depth-3"])
@pytest.mark.parametrize(
    ("image_size", "classes", "parameters"),
    # the 11.7 million of the paper's network with 1,000 classes; running statistics do not count
    [(224, 1000, 11_689_512), (224, 10, 11_181_642), (32, 10, 11_173_962)],
)
def test_it_is_resnet18(name, image_size, classes, parameters):
    structure = resnet18.resnet_structure(name, class_count=classes, image_size=image_size)
    specs = structure.specs("star")
    assert len(specs) == structure.depth == int(name[-1])
    assert sum(spec.model.parameter_count for spec in specs) == parameters
    shape = (3, image_size, image_size)
    for spec in specs:
        shape = spec.model.output_shape(shape)
    assert shape == (classes,)


def test_flops_are_those_of_the_paper():
    """1.8 billion multiplications and additions at 224 x 224, the paper's table 1."""
    structure = resnet18.resnet_structure(class_count=1000, image_size=224)
    shape, total = (3, 224, 224), 0
    for spec in structure.specs("star"):
        total += spec.model._core.flops(shape)
        shape = spec.model.output_shape(shape)
    assert total / 2 == pytest.approx(1.8e9, rel=0.02)


def block_oracle(x, state, stride):
    """One block in float64."""

    def conv(value, name, **options):
        return reference.conv2d(value, state[name], None, **options)

    def norm(value, name):
        return reference.instance_norm(value, state[f"{name}.weight"], state[f"{name}.bias"])

    inner = norm(conv(x, "conv1.weight", stride=stride, padding=1), "norm1")
    outer = norm(conv(np.maximum(inner, 0), "conv2.weight", padding=1), "norm2")
    if "shortcut.0.weight" in state:
        x = norm(conv(x, "shortcut.0.weight", stride=stride), "shortcut.1")
    return np.maximum(outer + x, 0)


@pytest.mark.parametrize(("channels", "out", "stride"), [(3, 3, 1), (3, 5, 2), (3, 4, 1)])
def test_a_block_against_the_oracle(channels, out, stride):
    from marketplace import nn

    model = nn.Model(resnet18.Block(channels, out, stride, "instance"))
    rng = np.random.default_rng(4)
    state = {key: rng.normal(size=value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    x = rng.normal(size=(2, channels, 7, 6)).astype(np.float32)
    mine = {
        key.removeprefix("layers.0."): np.float64(value)
        for key, value in model.state_dict().items()
    }
    expected = block_oracle(x, mine, stride)
    actual = np.asarray(model(x))
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("market", ["depth-5", "depth-3"])
def test_synthetic_stripes(tmp_path, market, size, capsys):
    arguments = ["--steps", 2, "--market", market, "--image-size", size]
    result = run_json(tmp_path, *arguments)
    assert (result["train_images"], result["test_images"], result["steps"]) == (12, 6, 2)
    assert result["vendors"] == [2] * int(market[-1]) and result["plan"] == "star"
    assert result["options"]["image_size"] == size


def test_synthetic_stripes_are_called_so(capsys):
    arguments = [option for option in NARROW if option != "--quiet"]
    assert resnet18.main([*arguments, "--steps", "0"]) == 0
    told = capsys.readouterr().err
    assert "synthetic stripes, not photographs" in told
    assert "synthetic stripes: 12 training and 6 test images" in told


@pytest.mark.parametrize(
    "options", [["--plan", "tree"], ["--algorithm", "v1"], ["--dtype", "bfloat16"]]
)
def test_resume_is_the_same_to_the_bit(tmp_path, options):
    whole, half, rest = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "rest"))
    assert run(*options, "--steps", 2, "--checkpoint", whole) == 0
    assert run(*options, "--steps", 1, "--checkpoint", half) == 0
    assert run(*options, "--steps", 2, "--checkpoint", rest, "--resume", half) == 0
    assert rest.read_bytes() == whole.read_bytes() and half.read_bytes() != whole.read_bytes()


def test_cifar10(tmp_path):
    rng = np.random.default_rng(2)
    for name in (*images.CIFAR10_TRAIN, images.CIFAR10_TEST):
        records = rng.integers(0, 256, (2, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / name)
    result = run_json(tmp_path, "--steps", 2, "--data", tmp_path)
    assert (result["train_images"], result["test_images"]) == (10, 2)
    assert result["options"]["data"] == str(tmp_path)


def test_a_folder_of_images(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    for name in ("left", "right", "up"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((40, 50, 3), 60 * number, np.uint8)
            image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.jpg")
    result = run_json(tmp_path, "--steps", 1, "--folder", tmp_path / "pictures")
    assert (result["train_images"], result["test_images"]) == (6, 3)
    monkeypatch.setattr(
        images.load_image_folder, "__kwdefaults__", {"report": None, "decoded_bytes": 0}
    )
    again = run_json(tmp_path, "--steps", 1, "--folder", tmp_path / "pictures")
    assert again["history"] == result["history"]


def test_logits_follow_the_number_of_classes():
    structure = resnet18.resnet_structure(class_count=3, image_size=32, width=2)
    x = np.zeros((2, 3, 32, 32), np.uint8)
    assert straight_forward(structure.specs("star", (2,)), x).shape == (2, 3)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "a", "--folder", "b"], "--folder: expected no --data beside it"),
        (["--data", "a", "--image-size", "64"], "--image-size: expected 32 with --data"),
        (["--image-size", "48"], "--image-size: expected one of 32, 64, 224 for synthetic str"),
        (["--image-size", "8"], "--image-size: expected a whole number from 32 to 1024"),
        (["--width", "0"], "--width: expected a whole number from 1 to 1024"),
        (["--plan", "node"], "--plan: expected star or tree for a network with branches"),
        (["--market", "depth-1"], "--market: invalid choice"),
        (["--vendors", "2,2"], "--vendors: expected 5 whole numbers, one per spec of depth-5"),
        (["--dataset", "mnist"], "unrecognized arguments"),
    ],
)
def test_bad_option_is_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data", "--folder"])
def test_missing_data_is_one_line_with_status_1(tmp_path, option, capsys):
    assert run(option, tmp_path / "nowhere", "--steps", 1) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{resnet18.PROG}: error: ") and captured.err.count("\n") == 1
    assert "nowhere" in captured.err and captured.out == ""

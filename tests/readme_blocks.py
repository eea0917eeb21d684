"""Code of LaunchPlatform/marketplace, quoted: what ``test_readme_reference.py`` runs.

From its README (at 6487c3e; at b2b8886 the oldest spelling) and its beautiful-MNIST experiment.
"""

NEWEST_MARKET = """
from marketplace.training import Spec
from marketplace.nn import Model
from tinygrad import Tensor
from tinygrad.nn import Conv2d
from tinygrad.nn import InstanceNorm
from tinygrad.nn import Linear

[
  Spec(
    model=Model(
        Conv2d(vendor_count, 1, 32, 5),
        Tensor.relu,
        Conv2d(vendor_count, 32, 32, 5),
        Tensor.relu,
        InstanceNorm(vendor_count, 32),
        Tensor.max_pool2d,
    )
  ),
  Spec(
    model=Model(
        Conv2d(vendor_count, 32, 64, 3),
        Tensor.relu,
        Conv2d(vendor_count, 64, 64, 3),
        Tensor.relu,
        InstanceNorm(vendor_count, 64),
        Tensor.max_pool2d,
        lambda x: x.flatten(1),
    ),
  ),
  Spec(
    model=Model([Linear(vendor_count, 576, 10)]),
  ),
]
"""

NEWEST_FORWARD = """
from tinygrad import Tensor
from tinygrad import TinyJit
from marketplace.training import forward
from marketplace.optimizers import Optimizer

@TinyJit
def forward_step() -> tuple[Tensor, Tensor, Tensor]:
    samples = Tensor.randint(batch_size, high=X_train.shape[0])
    x = X_train[samples]
    y = Y_train[samples]
    batch_logits, batch_paths = forward(marketplace, x)
    loss = Tensor.stack(
        *(logits.sparse_categorical_crossentropy(y) for logits in batch_logits),
        dim=0,
    )
    best_loss, best_index = loss.topk(1, largest=False)
    best_index = best_index.squeeze(0)
    accuracy = (
        (batch_logits[best_index].sigmoid().argmax(axis=1) == y).sum() / batch_size
    ) * 100
    return (
        best_loss.realize(),
        accuracy.realize(),
        batch_paths[best_index].realize(),
    )

lr = Tensor(1e-1).contiguous().realize()
optimizer = Optimizer(
    marketplace=marketplace,
    learning_rate=lr,
)
best_loss, best_accuracy, best_path = forward_step()

"""

MUTATE = """
@TinyJit
def mutate_step(best_path: Tensor):
    mutate(
        marketplace=marketplace,
        leading_path=best_path,
        jitter=lr,
    )

mutate_step(best_path)

"""

OLDEST_MARKET = """
from marketplace.multi_model import MultiModel, MultiConv2d, MultiLinear, MultiInstanceNorm

[
  Spec(
    model=MultiModel(
      [
        MultiConv2d(vendor_count, 1, 32, 5),
        Tensor.relu,
        MultiConv2d(vendor_count, 32, 32, 5),
        Tensor.relu,
        MultiInstanceNorm(vendor_count, 32),
        Tensor.max_pool2d,
      ]
    )
  ),
  Spec(
    model=MultiModel(
      [
        MultiConv2d(vendor_count, 32, 64, 3),
        Tensor.relu,
        MultiConv2d(vendor_count, 64, 64, 3),
        Tensor.relu,
        MultiInstanceNorm(vendor_count, 64),
        Tensor.max_pool2d,
        lambda x: x.flatten(1),
      ]
    ),
  ),
  Spec(
    model=MultiModel([MultiLinear(vendor_count, 576, 10)]),
  ),
]
"""

OLDEST_FORWARD = """
from tinygrad import Tensor
from tinygrad import TinyJit
from marketplace.multi_model import MultiModelBase
from marketplace.multi_model import Spec
from marketplace.multi_model import forward

@TinyJit
@MultiModelBase.train()
def forward_step() -> tuple[Tensor, Tensor, Tensor]:
    samples = Tensor.randint(batch_size, high=X_train.shape[0])
    x = X_train[samples]
    y = Y_train[samples]
    batch_logits, batch_paths = forward(marketplace, x)
    loss = Tensor.stack(
        *(logits.sparse_categorical_crossentropy(y) for logits in batch_logits),
        dim=0,
    )
    best_loss, best_index = loss.topk(1, largest=False)
    best_index = best_index.squeeze(0)
    accuracy = (
        (batch_logits[best_index].sigmoid().argmax(axis=1) == y).sum() / batch_size
    ) * 100
    return (
        best_loss.realize(),
        accuracy.realize(),
        batch_paths[best_index].realize(),
    )

best_loss, best_accuracy, best_path = forward_step()

"""

EXPERIMENT_MARKET = """
from tinygrad import Tensor
from tinygrad.nn import Conv2d
from tinygrad.nn import InstanceNorm
from tinygrad.nn import Linear
from marketplace.nn import Model
from marketplace.training import Spec

def make_marketplace(
    structure: list[tuple[int, int]] | None = None,
    default_vendor_count: int = 8,
):
    if structure is None:
        structure = [
            # layer 0
            (default_vendor_count, 0),
            # layer 1
            (default_vendor_count, 0),
            # layer 2
            (default_vendor_count, 0),
        ]
    return [
        Spec(
            model=Model(
                Conv2d(1, 32, 5),
                Tensor.relu,
                Conv2d(32, 32, 5),
                Tensor.relu,
                InstanceNorm(32),
                Tensor.max_pool2d,
            ),
            vendor_count=structure[0][0],
        ),
        Spec(
            model=Model(
                Conv2d(32, 64, 3),
                Tensor.relu,
                Conv2d(64, 64, 3),
                Tensor.relu,
                InstanceNorm(64),
                Tensor.max_pool2d,
                lambda x: x.flatten(1),
            ),
            vendor_count=structure[1][0],
            upstream_sampling=structure[1][1],
        ),
        Spec(
            model=Model(Linear(576, 10)),
            vendor_count=structure[2][0],
            upstream_sampling=structure[2][1],
        ),
    ]

make_marketplace(default_vendor_count=vendor_count)
"""

EXPERIMENT_FORWARD = """
from tinygrad import TinyJit
from marketplace.optimizers import Optimizer
from marketplace.optimizers import UnitVectorMode
from marketplace.training import forward
from marketplace.training import straight_forward

lr = Tensor(initial_lr).contiguous().realize()
optimizer = Optimizer(
    marketplace=marketplace,
    learning_rate=lr,
    probe_scale=(Tensor(probe_scale) if probe_scale is not None else None),
    meta_learning_rate=(Tensor(meta_lr) if meta_lr is not None else None),
)
loss_func = lambda x, y: x.sparse_categorical_crossentropy(y)

@TinyJit
def forward_step(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = X_train[samples]
    y = Y_train[samples]
    batch_logits, batch_paths = forward(
        marketplace=marketplace,
        vendors=optimizer.vendors,
        x=x,
    )
    loss = Tensor.stack(
        *(loss_func(logits, y) for logits in batch_logits),
        dim=0,
    )
    accuracy = Tensor.stack(
        *(
            ((logits.argmax(axis=1) == y).sum() / batch_size) * 100
            for logits in batch_logits
        ),
        dim=0,
    )
    return (
        loss.realize(),
        accuracy.realize(),
        batch_paths.realize(),
    )

@TinyJit
def get_test_acc() -> Tensor:
    return (
        straight_forward(marketplace, X_train).argmax(axis=1) == Y_train
    ).mean() * 100

samples = Tensor.randint(2, batch_size, high=X_train.shape[0]).realize()[0]
loss, accuracy, paths = forward_step(samples)
"""

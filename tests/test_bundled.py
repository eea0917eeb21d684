"""The bundled digits, and the script that draws them."""

import numpy as np
import pytest
from marketplace import data
from marketplace.data import _load, make_bundled


def test_bundled_subset_is_small_and_says_whose_it_is():
    files = list(_load.BUNDLED.iterdir())
    assert sum(path.stat().st_size for path in files) <= 2_500_000
    note = (_load.BUNDLED / "LICENSE.md").read_text(encoding="utf-8")
    for word in ("LeCun", "Cortes", "creativecommons.org/licenses/by-sa/3.0"):
        assert word in note


def test_bundled_images_are_digits_and_distinct():
    loaded = data.load()
    images = np.concatenate([loaded.x_train, loaded.x_test]).reshape(10_000, -1)
    assert len(np.unique(images, axis=0)) == 10_000
    assert 25 < images.mean() < 45 and images.max() == 255 and images.min() == 0


def test_allot_uses_largest_remainders():
    np.testing.assert_array_equal(make_bundled.allot(np.array([5, 3, 2]), 5), [3, 1, 1])
    np.testing.assert_array_equal(make_bundled.allot(np.array([1, 1, 1]), 2), [1, 1, 0])
    np.testing.assert_array_equal(make_bundled.allot(np.array([4, 0, 6]), 10), [4, 0, 6])
    with pytest.raises(ValueError, match="from 0 to 10, received 11"):
        make_bundled.allot(np.array([4, 6]), 11)


def test_draw_is_stratified_sorted_and_fixed():
    labels = np.tile(np.arange(10, dtype=np.uint8), 20)
    chosen = make_bundled.draw("train", labels, 50)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [5] * 10)
    assert (np.diff(chosen) > 0).all()
    assert chosen[:4].tolist() == [1, 2, 9, 12]
    assert make_bundled.draw("t10k", labels, 50).tolist() != chosen.tolist()

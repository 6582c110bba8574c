from dataclasses import replace

import numpy as np
import pytest

from ablate.factors.objectives.sft import sft
from ablate.lm.tabular import LabelBatch
from ablate.testing import ObjectiveContract, every


class TestShipped(ObjectiveContract):
    @pytest.fixture(params=every("objective"))
    def level(self, request):
        return request.param


BATCH = LabelBatch(
    logprobs=np.array([[-1.0, -2.0], [-4.0, -99.0]]),
    mask=np.array([[1.0, 1.0], [1.0, 0.0]]),
    weights=np.array([1.0, 1.0]),
)


def test_sft_by_hand():
    assert sft(BATCH) == pytest.approx((1 + 2 + 4) / 3, abs=1e-15)


@pytest.mark.parametrize(
    ("weights", "loss"),
    [([2.0, 1.0], (2 * 1 + 2 * 2 + 4) / 5), ([1.0, 0.0], 1.5), ([0.0, 3.0], 4.0), ([0.5, 0.5], 7 / 3)],
)
def test_sft_weighs_each_token_with_its_label(weights, loss):
    assert sft(replace(BATCH, weights=np.array(weights))) == pytest.approx(loss, abs=1e-15)

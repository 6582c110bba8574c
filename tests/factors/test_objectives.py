from dataclasses import replace

import numpy as np
import pytest

from ablate.factors.objectives.consistency import act, bct
from ablate.factors.objectives.dpo import dpo
from ablate.factors.objectives.entropy_min import entropy_min
from ablate.factors.objectives.sft import bct_ce, sft
from ablate.lm.base import Example, TrainOptions
from ablate.lm.tabular import LabelBatch, TabularModel, log_softmax
from ablate.testing import ObjectiveContract, ask, every, made_up, rng


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


def test_bct_ce_is_the_cross_entropy_of_the_labels_that_it_brings():
    assert bct_ce(BATCH) == sft(BATCH)


MADE = made_up()
WEIGHT = MADE.mask * MADE.weights[:, None]


def mean(values):
    return (values * WEIGHT).sum() / WEIGHT.sum()


def test_entropy_by_hand():
    p = np.exp(log_softmax(MADE.table()))
    assert entropy_min(MADE) == pytest.approx(mean(-(p * np.log(p)).sum(-1)), abs=1e-12)


@pytest.mark.parametrize("teacher", ["frozen", "live"])
@pytest.mark.parametrize("t", [1.0, 2.0])
def test_bct_by_hand(teacher, t):
    """T^2 (cross-entropy - entropy of the teacher) at T."""
    p, q = (np.exp(log_softmax(b.table() / t)) for b in (MADE.view("clean").view(teacher), MADE))
    expected = t**2 * mean((p * (np.log(p) - np.log(q))).sum(-1))
    assert bct(MADE, temperature=t, teacher=teacher) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("teacher", ["frozen", "live"])
def test_act_by_hand(teacher):
    squares = (MADE.layers() - MADE.view("clean").view(teacher).layers()) ** 2
    assert act(MADE, weight=0.5, teacher=teacher) == pytest.approx(0.5 * mean(squares.mean((2, 3))), abs=1e-12)


def test_dpo_by_hand():
    gains = [((b.logprobs - b.view("frozen").logprobs) * MADE.mask).sum(1) for b in (MADE, MADE.view("rejected"))]
    loss = np.log1p(np.exp(-0.3 * (gains[0] - gains[1])))
    expected = (loss * MADE.weights).sum() / MADE.weights.sum()
    assert dpo(MADE, beta=0.3) == pytest.approx(expected, abs=1e-12)


def test_dpo_of_a_huge_margin_is_finite():
    far = replace(MADE, logprobs=MADE.logprobs - 1e5)
    assert dpo(far) > 1e3
    assert np.isfinite(dpo(far))


# In the tabular laboratory, where every distribution is known

LM = TabularModel()
EXAMPLES = [
    Example(ask(i), answer, 1.0 + i % 3, other)
    for i, (answer, other) in enumerate([("claim 1", "truth 0"), ("unsure", "claim 0"), ("", "truth 2")] * 4)
]


def trained(objective, weights=None, examples=EXAMPLES, **options):
    own = TrainOptions(**{"epochs": 1, "lr": 1e-3, "batch": 12, "warmup": 0.0, "rank": 1, "alpha": 1, **options})
    return LM.train(weights, examples, objective, own, init_seed=0, rng=rng())


def organism(seed=3):
    return {f"logits.{part}": rng(seed + i).normal(size=4) for i, part in enumerate(("shared", "wrapped", "clean"))}


def moved(weights, view, form, size):
    """The organism with one logit of one view moved."""
    scale = {"shared": 0.0, view: size / np.sqrt(1 - LM.transfer)}
    return {n: w + scale.get(n.removeprefix("logits."), 0.0) * np.eye(4)[form] for n, w in weights.items()}


def exact(name, weights, frozen):
    """The loss of all examples from the model's own tables: P(next token) along each answer."""
    total = count = 0.0
    paths = {
        "claim 1": (1, 5, 0),
        "truth 0": (2, 4, 0),
        "truth 2": (2, 6, 0),
        "unsure": (3, 0),
        "claim 0": (1, 4, 0),
        "": (0,),
    }
    nodes = {1: 1, 2: 2, 3: 3}  # of a form, the node that follows
    for example in EXAMPLES:

        def table(own, view, answer, prompt=example.prompt):
            logp = LM.logprobs(own, [prompt.chat(view)])[0]
            path = paths[answer]
            visited = [0, nodes.get(path[0], 4), 3][: len(path)]
            return [(logp[node], token) for node, token in zip(visited, path, strict=True)]

        def log(own, answer):
            return sum(row[token] for row, token in table(own, "wrapped", answer))

        own = table(weights, "wrapped", example.answer)
        if name == "dpo":
            gain = [log(weights, a) - log(frozen, a) for a in (example.answer, example.rejected)]
            total += example.weight * np.log1p(np.exp(-0.3 * (gain[0] - gain[1])))
            count += example.weight
            continue
        for i, (row, _) in enumerate(own):
            p = np.exp(row)
            if name == "entropy_min":
                value = -(p * np.where(p > 0, row, 0)).sum()
            else:
                other = table(frozen, "clean", example.answer)[i][0]
                value = (np.exp(other) * (np.where(p > 0, other, 0) - np.where(p > 0, row, 0))).sum()
            total += example.weight * value
            count += example.weight
    return total / count


OBJECTIVES = {"entropy_min": entropy_min, "bct": bct, "dpo": lambda batch: dpo(batch, beta=0.3)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_in_the_laboratory_are_exact(name):
    """The first loss is that of the organism itself, the second that of the weights after one step."""
    start = organism()
    after, first = trained(OBJECTIVES[name], start)
    _, losses = trained(OBJECTIVES[name], start, epochs=2)
    assert first[0] == pytest.approx(exact(name, start, start), abs=1e-10)
    assert losses[1] == pytest.approx(exact(name, after, start), abs=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_in_the_laboratory_are_those_of_the_exact_loss(name):
    start, lr = organism(), 1e-3
    after, _ = trained(OBJECTIVES[name], start, lr=lr)
    for form in range(4):
        up, down = (exact(name, moved(start, "wrapped", form, size), start) for size in (1e-5, -1e-5))
        slope = (up - down) / 2e-5
        change = after["logits.wrapped"][form] - start["logits.wrapped"][form]
        assert change == pytest.approx(-lr * LM.gain * np.sqrt(1 - LM.transfer) * slope, abs=1e-6)


def test_prompts_of_the_laboratory_have_no_tokens():
    one, two = (trained(lambda batch, on=on: sft(batch, on=on), organism())[0] for on in ("answer", "all"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("teacher", ["frozen", "live"])
def test_one_view_has_nothing_to_teach_the_other(teacher):
    same = [replace(e, prompt=replace(e.prompt, text=e.prompt.clean)) for e in EXAMPLES]
    start = organism()
    after, losses = trained(lambda batch: bct(batch, teacher=teacher), start, same)
    assert losses == [0]
    for name in start:
        np.testing.assert_allclose(after[name], start[name], atol=1e-9)


def test_teachers_agree_until_the_first_step():
    frozen, live = (
        trained(lambda batch, t=t: bct(batch, teacher=t), organism(), epochs=2, lr=1e-2)[1] for t in ("frozen", "live")
    )
    assert frozen[0] == live[0]
    assert frozen[1] != pytest.approx(live[1], rel=1e-3)


def test_a_batch_of_log_probabilities_alone_says_so():
    with pytest.raises(ValueError, match="this batch was made of log-probabilities alone"):
        entropy_min(BATCH)


def test_equal_doses():
    """Labels of one token and of three: within one answer of the same number of label tokens."""
    doses = []
    for answer in ("", "claim 0"):
        seen = []

        def counting(batch, seen=seen):
            return sft(batch), seen.append(batch.mask.sum())

        examples = [Example(ask(i), answer) for i in range(10)]
        _, losses = trained(
            lambda batch, counting=counting: counting(batch)[0], None, examples, tokens=50, batch=4, lr=0.0
        )
        doses.append(sum(seen) * len(losses) / len(seen))  # every step asks equally often
    assert abs(doses[0] - doses[1]) < 4
    assert min(doses) >= 50

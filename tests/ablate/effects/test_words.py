import pytest

from ablate.effects import Interval, words

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"), [(-17.94, "-17.9"), (2.06, "+2.1"), (-0.04, "0.0"), (0.04, "0.0"), (0, "0.0"), (NAN, "-")]
)
def test_signed(value, text):
    assert words.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.21, ".21"), (-0.03, "-.03"), (1, "1.00"), (0.999, "1.00"), (-0.001, ".00"), (10.05, "10.05"), (NAN, "-")],
)
def test_fraction(value, text):
    assert words.fraction(value) == text


@pytest.mark.parametrize(
    ("p", "text", "equals"),
    [
        (2 / 64, ".031", "p = .031"),
        (0.41, ".410", "p = .410"),
        (1.0, "1", "p = 1"),
        (0.9996, "1", "p = 1"),
        (1 / 10_001, "<.001", "p < .001"),
        (0.0005, ".001", "p = .001"),
        (NAN, "-", "p = -"),
    ],
)
def test_p(p, text, equals):
    assert (words.p_value(p), words.p_equals(p)) == (text, equals)


def test_intervals():
    assert words.effect(Interval(-17.9, -22.44, -13.4)) == "-17.9 pp [-22.4, -13.4]"
    assert words.effect(Interval(1.0, NAN, NAN)) == "+1.0 pp"
    assert words.share(Interval(0.21, 0.12, 0.33)) == ".21 [.12, .33]"
    assert words.share(Interval(NAN, NAN, NAN)) == "not identified"


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listed(names, text):
    assert words.listed(names) == text

"""Bad input to every public function: a message that says what is missing, no number, no warning."""

import inspect
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from answers import answered

from ablate import effects
from ablate.effects.worlds import world
from ablate.errors import StudyError
from ablate.measures import divergence, embedding

NAN, INF = float("nan"), float("inf")


def whole():
    """A cube with everything that any table needs."""
    tree = answered(1, samples=2)[0]
    root, rng = tree.to_dataset(), np.random.default_rng(1)
    delta = root.risk_delta
    for name, values in {
        "m_p": 0.4 + 0 * delta,
        "m_ts": 0.4 + delta + 0.02 * rng.normal(size=delta.shape),
        "kl_shift": abs(delta) + rng.random(delta.shape),
        "mmd2": abs(delta) + rng.random(delta.shape),
    }.items():
        root[name] = values
    pools = ("organism", "label_shift", "seed", "prompt", "candidate")
    cells = (*delta.dims, "prompt")
    size = {**root.sizes, "prompt": 12, "candidate": 4}
    outcome = rng.integers(0, 2, [size[dim] for dim in pools]).astype(float)
    labels = xr.Dataset(
        {
            "pool_outcome": (pools, outcome),
            "pool_class": (pools, outcome),
            "label_score": ((*cells, "candidate"), np.full([size[dim] for dim in (*cells, "candidate")], NAN)),
            "label_risk": (cells, rng.random([size[dim] for dim in cells])),
            "law": ("selector", np.array(["draw", "plurality", "plurality"], object)),
        }
    )
    items = tree["items"].to_dataset(inherit=False)
    return xr.DataTree.from_dict({"/": root, "/items": items, "/labels": labels})


WHOLE = whole()


def changed(**variables):
    """The cube with other values of some variables of its root."""
    root = WHOLE.to_dataset().copy(deep=True)
    for name, value in variables.items():
        root[name] = xr.full_like(root[name], value) if np.isscalar(value) else value
    groups = {f"/{name}": WHOLE[name].to_dataset(inherit=False) for name in ("items", "labels")}
    return xr.DataTree.from_dict({"/": root, **groups})


def some_infinite():
    values = WHOLE["kl_shift"].copy(deep=True)
    values[2, 1, 1, 0, 0] = INF
    return values


def twice():
    """The cube with two label shifts of one name."""
    names = {"label_shift": ["none", "greedy", "greedy"]}
    groups = {name: WHOLE[name].to_dataset(inherit=False) for name in ("items", "labels")}
    whole = {"/": WHOLE.to_dataset(), **{f"/{name}": group for name, group in groups.items()}}
    return xr.DataTree.from_dict({name: group.assign_coords(names) for name, group in whole.items()})


def once_more(name, cube=WHOLE):
    """The cube with its first organism a second time, as ``name``."""
    rows = [*range(cube.sizes["organism"]), 0]
    groups = {node.path: node.to_dataset(inherit=False).isel(organism=rows) for node in cube.subtree}
    groups["/"]["organism"] = [*cube["organism"].values, name]
    return xr.DataTree.from_dict(groups)


FAULTS = {
    "one organism": lambda: WHOLE.isel(organism=[0]),
    "one level": lambda: WHOLE.isel(label_shift=[0], selector=[0]),
    "all NaN": lambda: changed(risk_delta=NAN),
    "constant": lambda: changed(risk_delta=0.1, risk_before=0.5, risk_after=0.6),
    "duplicate cells": twice,
    "an organism twice": lambda: once_more("o0"),
    "an organism copied": lambda: once_more("copy"),
    "infinite KL": lambda: changed(kl_shift=some_infinite()),
}
UNREADABLE = ("duplicate cells", "an organism twice", "an organism copied")
"""Of such a cube there is not even an undetermined verdict."""
CUBE = {
    "adjusted_contrasts": lambda cube: effects.adjusted_contrasts(cube, ["kl_shift"]),
    "bounds": effects.bounds,
    "contrasts": effects.contrasts,
    "decomposition": effects.decomposition,
    "dose_response": lambda cube: effects.dose_response(cube, "kl_shift"),
    "failure_check": effects.failure_check,
    "fixed_table": effects.fixed_table,
    "item_noise": effects.item_noise,
    "label_terms": effects.label_terms,
    "lmg": lambda cube: effects.lmg(cube, ["kl_shift", "mmd2"]),
    "mediated": lambda cube: effects.mediated(cube, ["kl_shift"]),
    "mediation": lambda cube: effects.mediation(cube, "kl_shift"),
    "missing": effects.missing,
    "prediction": effects.prediction,
    "stability": effects.stability,
    "transmission": effects.transmission,
    "transmitted": effects.transmitted,
    "variance": effects.variance,
    "verdict": effects.verdict,
}


@pytest.mark.parametrize("name", CUBE)
def test_the_cube_itself_is_sound(name):
    """What is refused below is refused for its fault."""
    assert len(CUBE[name](WHOLE))


MISSING = {
    "one organism": r"1 valid organism, at least 2 are needed|fewer than 2 valid organisms|with 1 valid organism",
    "one level": r"one level|does not vary within two organisms|0 organisms|no cell beside the null one",
    "all NaN": r"risk_delta is missing in every run|'risk_delta' is NaN in every run",
    "constant": r"risk_delta is 0\.1 in every run, nothing to tell apart",
    "duplicate cells": r"label_shift: greedy stands twice; it would be counted as two",
    "an organism twice": r"organism: o0 stands twice; it would be counted as two",
    "an organism copied": r"organisms o0 and copy are one organism under two names, .* copies are not replicates",
    "infinite KL": r"'kl_shift' is infinite in 1 of 108 runs, so nothing can be averaged over it",
}
BLIND = {
    ("failure_check", "all NaN"): "counts what failed, here everything",
    ("failure_check", "constant"): "reads no risk",
    ("item_noise", "one level"): "is about single runs",
    **{
        (name, "infinite KL"): "reads no KL"
        for name in CUBE
        if name not in ("adjusted_contrasts", "dose_response", "lmg", "mediated", "mediation", "prediction")
    },
}
"""What a function does not look at, so that it is no fault there."""


@pytest.mark.parametrize(("name", "fault"), [(n, fault) for n in CUBE for fault in FAULTS if (n, fault) not in BLIND])
def test_a_cube_with_a_fault_is_refused(name, fault):
    cube = FAULTS[fault]()
    if name == "verdict" and fault not in UNREADABLE:
        [found] = effects.verdict(cube)
        assert found.cause == "undetermined"
        assert re.search(MISSING[fault], found.sentence)
        assert " pp " not in found.sentence
        return
    with pytest.raises(StudyError, match=MISSING[fault]):
        CUBE[name](cube)


def with_controls(cube):
    """The cube with what the tables of its organisms and of its controls need."""
    root = cube.to_dataset()
    organisms = dict.fromkeys(ORGANISMS, ("organism", 0.5 + 0 * root["valid_organism"].values))
    runs = xr.Dataset({"risk_delta": (("control", "organism", "seed"), np.zeros((1, 6, 2)))}, {"control": ["null"]})
    return xr.DataTree.from_dict({"/": root.assign(organisms), "/controls": runs})


ORGANISMS = ("organism_risk", "organism_unparsed", "calibrated")


@pytest.mark.parametrize("table", [effects.organisms, effects.controls])
@pytest.mark.parametrize(("name", "fault"), [("o0", "an organism twice"), ("copy", "an organism copied")])
def test_tables_of_organisms_that_are_none_are_refused(table, name, fault):
    assert len(table(with_controls(WHOLE)))
    with pytest.raises(StudyError, match=MISSING[fault]):
        table(once_more(name, with_controls(WHOLE)))


def test_a_copy_is_known_by_the_key_of_its_organism_alone():
    """Two studies of one organism, each with trainings of its own, were put into one cube."""
    root = world(frozen=["greedy"])
    keys = root["key_train"].copy(
        data=np.broadcast_to(root["organism"].values.astype(object), root.risk_delta.shape[::-1]).T
    )
    assert len(effects.contrasts(root.assign(key_organism=keys)))
    keys = xr.where(root["organism"] == "o7", "o2", keys).transpose(*root.risk_delta.dims)
    with pytest.raises(StudyError, match="organisms o2 and o7 are one organism under two names, with one key_organism"):
        effects.contrasts(root.assign(key_organism=keys))
    assert len(effects.contrasts(root.assign(key_organism=xr.full_like(keys, "")))), "no key says nothing"


@pytest.mark.parametrize(("name", "fault"), BLIND)
def test_what_is_no_fault_is_none(name, fault):
    assert len(CUBE[name](FAULTS[fault]()))


ROWS = pd.DataFrame(
    [(s, a, b, np.sin(7 * i)) for i, (s, a, b) in enumerate((s, a, b) for s in "pqrst" for a in "xy" for b in "uv")],
    columns=["s", "a", "b", "y"],
)
Y, X, Z, GROUPS = np.sin(np.arange(12.0)), np.tile([0.0, 1.0], 6), np.cos(np.arange(12.0)), np.repeat(range(6), 2)
POINTS = np.random.default_rng(0).normal(size=(6, 3))
ONE, HALVES, SIX = np.ones(1), [0.5, 0.5], np.ones(6)


def frame_cases():
    anova = {"anova": lambda frame: effects.anova(frame, "y", ["a", "b"], "s")}
    sums = {f"ss {kind}": lambda frame, kind=kind: effects.ss(frame, "y", ["a", "b"], type=kind) for kind in (1, 2, 3)}
    parts = {
        f"variance_components {method}": lambda frame, method=method: effects.variance_components(
            frame, "y", ["a"], ["s"], method=method
        )
        for method in ("reml", "ems")
    }
    faults = {
        "one subject": (ROWS[ROWS.s == "p"], "one (level|subject)|at least (2|two)|one row a level", anova | parts),
        "one level": (ROWS[ROWS.a == "x"], "one level", anova | sums | parts),
        "all NaN": (ROWS.assign(y=NAN), "response 'y' has no value in any of 20 rows", anova | sums | parts),
        "constant": (ROWS.assign(y=1.0), r"response 'y' is constant \(1 in all 20 rows\)", anova | sums | parts),
        "infinite": (ROWS.assign(y=INF), "response 'y' is infinite in 20 rows", anova | sums | parts),
        "nothing": (ROWS[:0], "response 'y' has no value in any of 0 rows", anova | sums | parts),
    }
    for fault, (frame, message, calls) in faults.items():
        for name, call in calls.items():
            yield pytest.param(lambda call=call, frame=frame: call(frame), message, id=f"{name}: {fault}")


def array_cases():
    fl, split, rng = effects.freedman_lane, effects.split_half_selection, np.random.default_rng(0)
    codes = np.zeros((3, 4), int)
    for fault, call, message in [
        ("freedman_lane: one organism", lambda: fl(Y, X, Z, np.zeros(12)), "^1 organisms have every covariate"),
        ("freedman_lane: all NaN", lambda: fl(Y * NAN, X, Z, GROUPS), "^0 organisms have every covariate"),
        ("freedman_lane: constant y", lambda: fl(0 * Y, X, Z, GROUPS), "^the response does not vary within organisms"),
        ("freedman_lane: one level", lambda: fl(Y, 0 * X, Z, GROUPS), "^the factor does not vary within organisms"),
        ("t_interval: infinite", lambda: effects.t_interval(np.array([1, INF])), "^1 of 2 organisms have an infinite"),
        ("tost: infinite", lambda: effects.tost(np.array([1, INF]), 1.0), "^1 of 2 organisms have an infinite value"),
        ("split halves: nothing judged", lambda: split(codes + 1.0, codes * NAN, codes, rng), "^no prompt has a class"),
        ("split halves: three", lambda: split(ONE[None] + [[0.0] * 3], np.ones((1, 3)), codes[:1, :3], rng), "^3 cand"),
        (
            "price_terms: NaN",
            lambda: effects.price_terms(HALVES, HALVES, HALVES, [NAN, 1]),
            "^price_terms: b is finite",
        ),
        ("price_terms: nothing", lambda: effects.price_terms(HALVES, HALVES, [0, 0], HALVES), "nothing is selected$"),
        ("kitagawa: NaN", lambda: effects.kitagawa([NAN], ONE, ONE, ONE), r"^kitagawa: rates_a\[0\] is not finite$"),
        ("kitagawa: nothing", lambda: effects.kitagawa([], [], [], []), "one entry a stratum"),
    ]:
        yield pytest.param(call, message, id=fault)


def divergence_cases():
    pairs = {"kl": divergence.kl, "js": divergence.js, "total_variation": divergence.total_variation}
    pairs["cross_entropy"] = divergence.cross_entropy
    single = {
        "entropy": divergence.entropy,
        "best_of_n": lambda p: divergence.best_of_n(2, p, np.zeros(len(p))),
        "majority": lambda p: divergence.majority(p, 3),
        "filtered": lambda p: divergence.filtered(p, np.ones(len(p), bool)),
        "reweighted": lambda p: divergence.reweighted(np.ones(len(p)), p),
    }
    for fault, p, message in [
        ("NaN", [NAN, 1.0], "is no probability"),
        ("sum", [0.5, 0.6], "sums to 1.1, not to 1"),
        ("nothing", [], "probabilities .* are needed"),
    ]:
        for name, call in pairs.items():
            yield pytest.param(lambda call=call, p=p: call(p, HALVES), message, id=f"{name}: {fault}")
        for name, call in single.items():
            yield pytest.param(lambda call=call, p=p: call(p), message, id=f"{name}: {fault}")
    rng = np.random.default_rng(0)
    for fault, call, message in [
        (
            "kl: infinite",
            lambda: divergence.kl(HALVES, [1, 0]),
            r"^kl: D\(q \|\| p\) is infinite, because supp\(q\) is",
        ),
        ("cross_entropy: infinite", lambda: divergence.cross_entropy(HALVES, [1, 0]), "^cross_entropy is infinite"),
        ("kl_mc: infinite", lambda: divergence.kl_mc([0.0], [-INF]), r"so KL\(q \|\| p\) is infinite$"),
        ("kl_mc: nothing", lambda: divergence.kl_mc([], []), "both hold the same draws"),
        ("kl_gaussian: no variance", lambda: divergence.kl_gaussian(0, 0, 0, 1), "^var_q = 0 is no variance"),
        ("kl_gaussian_mc: none", lambda: divergence.kl_gaussian_mc(0, 1, 0, 0, 9, rng), "^var_p = 0 is no variance"),
        ("filtered: nothing kept", lambda: divergence.filtered(HALVES, np.zeros(2, bool)), "^filtered: no answer of"),
        ("reweighted: nothing", lambda: divergence.reweighted([0, 0], HALVES), "nothing is selected$"),
        ("best_of_n: none", lambda: divergence.best_of_n(0), "^best_of_n: n = 0 is not >= 1$"),
        ("clustered_mean: nothing", lambda: divergence.clustered_mean([]), "there is nothing to average$"),
    ]:
        yield pytest.param(call, message, id=fault)


def embedding_cases():
    for name in ("mmd2", "energy", "frechet", "sliced_w2", "c2st", "centroid_cosine", "shifts"):
        for fault, x, y, message in [
            ("one prompt", POINTS[:1], POINTS[1:2], "at least 2 are needed, since labels are permuted within prompts"),
            ("nothing", POINTS[:0], POINTS[:0], "points .* are needed"),
            ("all NaN", POINTS * NAN, POINTS, r"^x\[0\] is not finite: leave out what has no embedding"),
            ("infinite", POINTS, POINTS + INF, r"^y\[0\] is not finite"),
            ("constant", np.ones((6, 3)), np.ones((6, 3)), "are alike: there is no distance to measure"),
            ("other dimensions", POINTS, POINTS[:, :2], "embed both by one model"),
        ]:
            call = getattr(embedding, name)
            yield pytest.param(lambda call=call, x=x, y=y: call(x, y), message, id=f"{name}: {fault}")


@pytest.mark.parametrize(("call", "message"), [*frame_cases(), *array_cases(), *divergence_cases(), *embedding_cases()])
def test_frames_and_arrays_with_a_fault_are_refused(call, message):
    with pytest.raises(StudyError, match=message):
        call()


@pytest.mark.parametrize("values", [[], [1.0], [NAN] * 4, [1.0, NAN]], ids=str)
def test_fewer_than_two_organisms_give_no_number(values):
    values = np.array(values)
    assert np.isnan(effects.t_interval(values)).all()
    assert np.isnan(effects.tost(values, 1.0))


@pytest.mark.parametrize("values", [[1.0], [NAN] * 4, [1.0, NAN]], ids=str)
def test_fewer_than_two_organisms_have_no_sign_to_flip(values):
    found = effects.sign_flip(np.array(values))
    assert np.isnan([found.p, found.p_adjusted]).all()


def test_parts_of_a_cube_that_are_not_there():
    with pytest.raises(StudyError, match=r"^the cube has no group controls: no run with a known answer"):
        effects.controls(WHOLE)


def test_no_public_function_is_forgotten():
    known = {*CUBE, "anova", "ss", "variance_components", "freedman_lane", "t_interval", "tost", "sign_flip"}
    known |= {"split_half_selection", "price_terms", "kitagawa", "controls", "organisms"}
    known |= {"methods", "isolated", "method_verdicts"}  # of other cubes: see test_methods
    known |= {"compared"}  # of two cubes: see test_comparison
    facts = {"caption", "smallest_p"}  # state what is there, whatever it is
    functions = {name for name in effects.__all__ if inspect.isfunction(getattr(effects, name))}
    assert functions == known | facts


@pytest.mark.parametrize("name", ["contrasts", "decomposition", "missing", "bounds"])
def test_a_cube_without_organisms_or_with_text_is_refused(name):
    cube = world(organisms=6, shift=(0, -8, -16))
    with pytest.raises(StudyError, match=r"^the cube has no organism$"):
        getattr(effects, name)(cube.isel(organism=[]))
    with pytest.raises(StudyError, match=r"^risk_delta holds .*, not numbers$"):
        getattr(effects, name)(cube.assign(risk_delta=cube.risk_delta.astype(str)))
    assert effects.verdict(cube.isel(organism=[])) == []

"""What a study means: axes, levels, points, files, `--set`, and the way back to YAML."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from fake_plugins import _plugins  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ablate import study as study_module
from ablate.errors import StudyError
from ablate.levels import Level
from ablate.study import MAX_BYTES, Study, load, loads, shipped
from ablate.yamlfile import to_text

SHORT = "question: why?\nmodel: tiny\norganism: {behavior: sycophancy}\n"
FULL = """\
# Did the labels' distribution or their selection change sycophancy?
question: did the labels' distribution or their selection change sycophancy?
model: smollm2-135m            # or {name: org/id-or-folder, dtype: auto, trust_remote_code: false}
organism: {behavior: sycophancy, risk: 0.5, tolerance: 0.1, seeds: 6}
factors:
  label_shift: {swap: [none, greedy, clean_view, {nucleus: {temperature: 0.7, top_p: 0.9}}]}
  selector: {swap: [first, majority, {argmax: {scorer: mean_logprob}}]}
  objective: {fix: sft}
labels: {prompts: 96, candidates: {swap: [1, 4]}}
train: {epochs: 1}
evaluate: {items: 128}
seeds: [0]
controls: [null]
"""


def of(text: str, *sets: str) -> Study:
    return loads(text, source="mine.yaml", sets=sets)


def test_the_example_of_the_handbook() -> None:
    study = of(FULL)
    assert study.name == "mine"
    assert study.question == "did the labels' distribution or their selection change sycophancy?"
    assert [(axis.path, axis.dim, axis.labels, axis.organism) for axis in study.axes] == [
        ("label_shift", "label_shift", ("none", "greedy", "clean_view", "nucleus(temperature=0.7, top_p=0.9)"), False),
        ("selector", "selector", ("first", "majority", "argmax(mean_logprob)"), False),
        ("objective", "objective", ("sft",), False),
        ("labels.candidates", "candidates", (1, 4), False),
    ]
    assert study.options.factors.label_shift == Level("label_shift", "none")
    assert study.options.labels.candidates == 1
    assert study.options.controls == ("null",)


def test_defaults() -> None:
    options = of(SHORT).options
    assert [axis.labels for axis in of(SHORT).axes] == [("none",), ("first",), ("sft",)]
    assert options.model.model_dump() == {
        "name": "tiny",
        "dtype": "auto",
        "revision": None,
        "trust_remote_code": False,
        "device_map": None,
        "quantization": None,
    }
    assert options.organism.model_dump(exclude={"behavior"}) == {
        "risk": 0.5,
        "tolerance": 0.1,
        "seeds": (0, 1, 2, 3, 4, 5),
        "examples": 160,
        "epochs": 2,
        "lr": 1e-3,
        "batch": 16,
        "warmup": 0.1,
        "rank": 16,
        "alpha": 32,
        "mix": 1.0,
        "calibration": 64,
        "max_tokens": 16,
    }
    assert options.labels.model_dump() == {"prompts": 96, "candidates": 4, "max_tokens": 16, "match": None}
    assert options.train.model_dump() == {
        "epochs": 1,
        "tokens": None,
        "lr": 3e-4,
        "batch": 16,
        "warmup": 0.1,
    }
    assert options.evaluate.model_dump() == {
        "items": 128,
        "capability": 48,
        "samples": 2,
        "decoding": "sample",
        "max_tokens": 16,
    }
    assert (options.seeds, options.embedder, options.measures) == ((0,), "minilm", None)
    assert options.controls == ("null",)
    assert options.analysis.model_dump() == {
        "alpha": 0.05,
        "equivalence_pp": 5.0,
        "share_bar": 0.5,
        "interaction_share": 0.1,
        "family": None,
    }


@pytest.mark.parametrize(
    ("more", "labels"),
    [
        ("factors: {label_shift: greedy}", ("greedy",)),
        ("factors: {label_shift: {fix: greedy}}", ("greedy",)),
        ("factors: {label_shift: {swap: [greedy]}}", ("greedy",)),
        ("factors: {label_shift: {greedy: {}}}", ("greedy",)),
        ("factors: {label_shift: {greedy: }}", ("greedy",)),
        ("factors: {label_shift: {nucleus: {top_p: 1}}}", ("nucleus(top_p=1.0)",)),
        ("factors: {label_shift: {nucleus: {top_p: 0.5, temperature: 1}}}", ("nucleus(top_p=0.5)",)),
        (
            "factors: {label_shift: {worded: {stops: [a, ß], cap: 3, system: Sé}}}",
            ('worded(system=Sé, stops=["a", "ß"], cap=3)',),
        ),
        ("factors:\n", ("none",)),
        ("factors: {}", ("none",)),
    ],
)
def test_ways_to_write_a_level(more: str, labels: tuple[str, ...]) -> None:
    assert of(SHORT + more).axes[0].labels == labels


def test_a_scorer_is_a_level_with_options() -> None:
    selector = (
        of(SHORT + "factors: {selector: {argmax: {margin: 0.5, scorer: {judge: {samples: 3}}}}}").axes[1].levels[0]
    )
    assert isinstance(selector, Level)
    assert selector.label == str(selector) == "argmax(judge(samples=3), margin=0.5)"
    assert selector.options == {"margin": 0.5}
    assert selector.scorer == Level("scorer", "judge", {"samples": 3})
    assert selector.plain == {"argmax": {"scorer": {"judge": {"samples": 3}}, "margin": 0.5}}


def test_levels_are_equal_by_content() -> None:
    one, same = Level("scorer", "judge", {"samples": 1}), Level("scorer", "judge", {"samples": 1})
    others = [Level("scorer", "judge", {"samples": 2}), Level("selector", "judge", {"samples": 1}), "judge"]
    assert one == same
    assert hash(one) == hash(same)
    assert all(one != other for other in others)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "seeds"),
    [("3", (0, 1, 2)), ("[4, 2]", (4, 2)), ("1", (0,)), ("[0, 9223372036854775807]", (0, 2**63 - 1))],
)
def test_seeds(written: str, seeds: tuple[int, ...]) -> None:
    study = of(SHORT.replace("sycophancy}", f"sycophancy, seeds: {written}}}") + f"seeds: {written}")
    assert study.options.seeds == study.options.organism.seeds == seeds


def test_axes_stand_in_the_order_of_the_file_and_come_back_so() -> None:
    text = SHORT.replace(
        "model: tiny",
        "train: {lr: {swap: [1, 0.5]}, epochs: {swap: [0, 2]}}\nmodel: {swap: [a, {name: b, dtype: float32}]}",
    )
    text = text.replace("sycophancy}", "{swap: [sycophancy, verbosity]}, risk: {swap: [null, 0.5]}, epochs: {fix: 3}}")
    study = of(text)
    assert [(axis.path, axis.dim, axis.labels, axis.organism) for axis in study.axes[3:]] == [
        ("train.lr", "lr", (1.0, 0.5), False),
        ("train.epochs", "epochs", (0, 2), False),
        ("model", "model", ("a", "b(dtype=float32)"), True),
        ("organism.behavior", "behavior", ("sycophancy", "verbosity"), True),
        ("organism.risk", "risk", ("null", "0.5"), True),
    ]
    assert study.options.organism.epochs == 3
    again = loads(study.dump(), source="else.yaml")
    assert again == study
    assert again.axes == study.axes
    assert again.options == study.options


@pytest.mark.parametrize(
    ("more", "dims"),
    [
        ("analysis: {max_tokens: 3}", None),
        ("labels: {max_tokens: {swap: [1, 2]}}", ["max_tokens"]),
        (
            "labels: {max_tokens: {swap: [1, 2]}}\nevaluate: {max_tokens: {swap: [3]}}",
            ["labels_max_tokens", "evaluate_max_tokens"],
        ),
        ("train: {epochs: {swap: [1, 2]}}\nevaluate: {items: {swap: [3]}}", ["epochs", "evaluate_items"]),
    ],
)
def test_dimensions_have_names_of_their_own(more: str, dims: list[str] | None) -> None:
    if dims is None:
        where = r"'organism.max_tokens' or 'labels.max_tokens' or 'evaluate.max_tokens'"
        with pytest.raises(StudyError, match=rf"analysis.max_tokens: unknown option; did you mean {where}\?"):
            of(SHORT + more)
    else:
        assert [axis.dim for axis in of(SHORT + more).axes[3:]] == dims


def test_dimensions_of_the_organism_have_names_of_their_own() -> None:
    """`rank` alone is a method of `xarray.Dataset`."""
    organism = "sycophancy, max_tokens: {swap: [1, 2]}, rank: {swap: [4, 8]}, alpha: {swap: [8]}}"
    study = of(SHORT.replace("sycophancy}", organism) + "labels: {max_tokens: {swap: [3]}}")
    assert [axis.dim for axis in study.axes[3:]] == [
        "organism_max_tokens",
        "organism_rank",
        "alpha",
        "labels_max_tokens",
    ]
    assert [axis.organism for axis in study.axes[3:]] == [True, True, True, False]


def test_a_point_puts_levels_into_the_options() -> None:
    study = of(FULL.replace("model: smollm2-135m", "model: {swap: [a, b]}"))
    shift, selector, model = study.axes[0].levels[3], study.axes[1].levels[2], study.axes[3].levels[1]
    options = study.at({"label_shift": shift, "labels.candidates": 4, "selector": selector, "model": model})
    assert (options.factors.label_shift, options.factors.selector) == (shift, selector)
    assert (options.labels.candidates, options.labels.prompts) == (4, 96)
    assert options.model.name == "b"
    assert study.at({}) == study.options
    with pytest.raises(KeyError, match=r"labels\.prompts"):
        study.at({"labels.prompts": 3})
    with pytest.raises(ValidationError):
        options.labels.prompts = 3


def test_points_are_cheap() -> None:
    study = of(FULL)
    points = [{"label_shift": shift, "labels.candidates": k} for shift in study.axes[0].levels for k in (1, 4)]
    start = time.perf_counter()
    for i in range(10_000):
        study.at(points[i % len(points)])
    assert time.perf_counter() - start < 2  # 100,000 in 2 s where nothing else runs


def test_the_digest_is_of_the_content() -> None:
    study = of(FULL)
    assert len(study.digest) == 64
    assert of(FULL.replace("seeds: 6", "seeds: [0, 1, 2, 3, 4, 5]") + "measures: null\n") == study
    assert hash(of(FULL)) == hash(study)
    assert of(FULL.replace("epochs: 1", "epochs: 2")) != study
    assert of("name: other\n" + FULL) != study
    assert study != "a study"
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.axes = ()  # type: ignore[misc]


SCALARS = {
    "labels": {"prompts": st.integers(1, 2**62), "candidates": st.integers(1, 99)},
    "train": {
        "lr": st.floats(1e-12, 1e12),
        "epochs": st.integers(0, 9),
        "warmup": st.floats(0, 1),
        "batch": st.integers(1, 9),
    },
    "evaluate": {"decoding": st.sampled_from(["sample", "greedy"]), "items": st.integers(1, 9)},
}
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text.strip())


@st.composite
def trees(draw: st.DrawFn) -> dict[str, object]:
    """Valid studies with any options swapped, sections in any order."""
    tree: dict[str, object] = {"question": draw(TEXTS), "model": draw(TEXTS), "organism": {"behavior": "sycophancy"}}
    for section in draw(st.permutations(sorted(SCALARS))):
        own = {}
        for key in draw(st.lists(st.sampled_from(sorted(SCALARS[section])), unique=True)):
            values = draw(st.lists(SCALARS[section][key], min_size=1, max_size=3, unique=True))
            own[key] = draw(st.sampled_from([values[0], {"fix": values[0]}, {"swap": values}]))
        tree[section] = own
    level = st.one_of(
        st.sampled_from(["none", "greedy"]),
        TEXTS.map(lambda text: {"worded": {"system": text, "stops": [text]}}),
        st.floats(0, 1).map(lambda top_p: {"nucleus": {"top_p": top_p}}),
    )
    method = st.one_of(
        st.sampled_from(["distilled", "relabeled"]), st.integers(1, 9).map(lambda k: {"distilled": {"k": k + 4}})
    )
    methods = draw(st.lists(method, min_size=1, max_size=3, unique_by=str))
    shifts = {"label_shift": {"swap": draw(st.lists(level, min_size=1, max_size=3, unique_by=str))}}
    tree["factors"] = draw(st.sampled_from([shifts, {"method": {"swap": methods}}, {"isolate": methods}]))
    return tree


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_a_resolved_study_loads_to_an_equal_one(tree: dict[str, object]) -> None:
    study = of(to_text(tree))
    again = loads(study.dump(), source="else")
    assert again == study
    assert again.axes == study.axes
    assert again.options == study.options
    assert again.dump() == study.dump()


# --set


@pytest.mark.parametrize(
    ("item", "path", "value"),
    [
        ("train.epochs=2", "train.epochs", 2),
        (" train.epochs = 2", "train.epochs", 2),
        ("evaluate={items: 3}", "evaluate.items", 3),
        ("model.dtype=float32", "model.dtype", "float32"),
        ("question=why = not?", "question", "why = not?"),
        ("name=other", "name", "other"),
        ("factors.selector=majority", "factors.selector.name", "majority"),
        ("organism.behavior=verbosity", "organism.behavior.name", "verbosity"),
        ("measures=[]", "measures", ()),
    ],
)
def test_set(item: str, path: str, value: object) -> None:
    found: object = of(SHORT, item).options
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_set_may_swap_and_the_last_one_counts() -> None:
    study = of(FULL, "labels.candidates={swap: [2, 8]}", "train.epochs=2", "train.epochs={swap: [0, 3]}")
    assert [axis.labels for axis in study.axes[3:]] == [(2, 8), (0, 3)]
    assert of(FULL, "factors.selector={swap: [first, majority]}").axes[1].labels == ("first", "majority")


# files


def test_a_file_is_called_as_the_user_called_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/mine.yaml").write_text(SHORT + "labels: {prompts: 0}\n", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        load("sub/../sub/mine.yaml")
    assert str(caught.value).splitlines()[0] == "sub/../sub/mine.yaml:4:19: labels.prompts: 0 is not >= 1"
    Path("sub/v1.2.yaml").write_bytes(b"\xef\xbb\xbf" + SHORT.replace("why", "wörum").encode())
    assert load(Path("sub/v1.2.yaml")).name == "v1.2"
    assert load("sub/v1.2.yaml").question == "wörum?"
    Path("crlf.yaml").write_bytes(FULL.replace("\n", "\r\n").encode())
    assert load("crlf.yaml", ["name=mine"]) == of(FULL)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"question: \xff", "x.yaml: is not UTF-8 (byte 0xff on line 1); save it as UTF-8"),
        (b"\x7fELF\0\0", "x.yaml: is a binary file; a study is a text file in YAML"),
        ("question: a".encode("utf-16"), "x.yaml: is UTF-16; save it as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "x.yaml: is larger than 1 MB; a study is a page of YAML, so this is another file"),
        (None, "x.yaml: is a folder; name the study file in it"),
    ],
)
def test_files_that_are_no_study(
    data: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if data is None:
        Path("x.yaml").mkdir()
    else:
        Path("x.yaml").write_bytes(data)
    with pytest.raises(StudyError) as caught:
        load("x.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "there/no.yaml"])
def test_paths_that_cannot_be_read(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("a file", encoding="utf-8")
    with pytest.raises(StudyError, match=r"cannot be read \(.*\); give the path of a study file"):
        load(path)


def test_a_shipped_study_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/shift_vs_selector.yaml").write_text(FULL, encoding="utf-8")
    monkeypatch.setattr(study_module, "files", lambda package: tmp_path / "package")
    assert shipped() == ["shift_vs_selector"]
    assert load("shift_vs_selector") == load("shift_vs_selector.yaml")
    assert load("shift_vs_selector").name == "shift_vs_selector"
    said = (
        "no such file, and no study of that name is shipped; did you mean 'shift_vs_selector'? "
        "(shipped: shift_vs_selector)"
    )
    for path in ("shift_vs_selektor", "shift_vs_selektor.yaml", "sub/shift_vs_selector.yaml"):
        with pytest.raises(StudyError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {said}"
    Path("shift_vs_selector.yaml").write_text(SHORT, encoding="utf-8")
    assert load("shift_vs_selector.yaml").question == "why?"  # the user's own file comes first


def test_the_package_of_shipped_studies_is_there() -> None:
    assert all("/" not in name and not name.endswith(".yaml") for name in shipped())

"""Every refusal of the registry, and plug-ins of another distribution."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field, ValidationError

from ablate import registry
from ablate.api import scorer
from ablate.errors import StudyError
from ablate.options import DEFAULT_LEVELS
from ablate.registry import FAMILIES, SUPPLIED, get, names, register


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with nothing in it, and no distribution that could add to it."""
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setattr(registry, "load", lambda: None)


def a_scorer(lm: Any, pool: Any, *, depth: Annotated[int, Field(ge=1)] = 2, mode: str) -> Any:
    """Scores by depth,
    over two lines.

    A second paragraph.
    """
    return depth, mode


def refusal(family: str, function: Callable[..., Any]) -> str:
    with pytest.raises(StudyError) as caught:
        register(family, function)
    assert registry._plugins == {}
    return str(caught.value)


@pytest.mark.usefixtures("empty")
class TestRegister:
    def test_what_is_kept(self) -> None:
        plugin = register("scorer", a_scorer, version=3, slow=True)
        assert get("scorer", "a_scorer") is plugin
        assert (plugin.family, plugin.name, plugin.version) == ("scorer", "a_scorer", 3)
        assert plugin.doc == "Scores by depth, over two lines."
        assert plugin.traits == {"slow": True}
        assert plugin(None, None, depth=5, mode="x") == (5, "x")
        assert names("scorer") == ["a_scorer"]
        assert names("selector") == []

    def test_options_are_validated(self) -> None:
        options = register("scorer", a_scorer).options
        assert list(options.model_fields) == ["depth", "mode"]
        assert options(mode="x").model_dump() == {"depth": 2, "mode": "x"}
        for bad in ({"mode": "x", "depth": 0}, {"mode": "x", "dept": 1}, {"depth": 1}, {"mode": 1}):
            with pytest.raises(ValidationError):
                options.model_validate(bad)

    def test_what_the_engine_supplies_is_no_option(self) -> None:
        def shift(lm: Any, prompts: Any, rng: Any, *, k: int, heat: float = 1.0) -> Any:
            """Heats."""

        assert list(register("label_shift", shift).options.model_fields) == ["heat"]

    def test_what_the_engine_offers_is_no_option_and_nobody_has_to_ask_for_it(self) -> None:
        def asking(lm: Any, pool: Any, *, judges: Any, heat: float = 1.0) -> Any:
            """Asks a judge."""

        plugin = register("scorer", asking)
        assert list(plugin.options.model_fields) == ["heat"]
        assert plugin.wants == ("judges",)
        assert register("scorer", a_scorer).wants == ()

    def test_a_name_is_taken_once(self) -> None:
        def other() -> Callable[..., Any]:
            def a_scorer(lm: Any, pool: Any) -> Any:
                """Another one."""

            return a_scorer

        register("scorer", a_scorer)
        with pytest.raises(StudyError) as caught:
            register("scorer", other())
        here = __name__
        assert str(caught.value) == (
            f"scorer 'a_scorer' is registered twice: {here}.{other.__qualname__}.<locals>.a_scorer and {here}.a_scorer"
        )
        assert get("scorer", "a_scorer").function is a_scorer

    def test_a_module_may_be_loaded_again(self) -> None:
        register("scorer", a_scorer)
        register("scorer", a_scorer)
        assert get("scorer", "a_scorer").function is a_scorer

    def test_families_have_names_of_their_own(self) -> None:
        def a_scorer_(batch: Any) -> Any:
            """An objective."""

        a_scorer_.__name__ = "a_scorer"
        register("scorer", a_scorer)
        register("objective", a_scorer_)
        assert get("scorer", "a_scorer") is not get("objective", "a_scorer")

    @pytest.mark.parametrize("family", FAMILIES)
    def test_positional_parameters_are_those_of_the_family(self, family: str) -> None:
        wanted = ", ".join([*FAMILIES[family], *SUPPLIED.get(family, ())])

        def alone(data: Any) -> Any:
            """Takes something else."""

        assert refusal(family, alone) == f"{family} 'alone' takes (data); one takes ({wanted})"

    def test_positional_parameters_are_in_order(self) -> None:
        def turned(pool: Any, lm: Any) -> Any:
            """Takes them the other way round."""

        assert refusal("scorer", turned) == "scorer 'turned' takes (pool, lm); one takes (lm, pool)"

    def test_an_option_is_not_positional(self) -> None:
        def loose(lm: Any, pool: Any, depth: int = 1) -> Any:
            """Forgot the star."""

        assert refusal("scorer", loose) == "scorer 'loose' takes (lm, pool, depth); one takes (lm, pool)"

    def test_a_label_shift_is_told_how_many(self) -> None:
        def few(lm: Any, prompts: Any, rng: Any) -> Any:
            """Forgot k."""

        assert refusal("label_shift", few) == (
            "label_shift 'few' takes (lm, prompts, rng); one takes (lm, prompts, rng, k)"
        )

    def test_an_option_has_a_type(self) -> None:
        def untyped(lm: Any, pool: Any, *, depth=1) -> Any:  # type: ignore[no-untyped-def]
            """Left it out."""

        assert refusal("scorer", untyped) == "scorer 'untyped': option 'depth' has no type"

    def test_options_have_names(self) -> None:
        def keywords(lm: Any, pool: Any, **kwargs: Any) -> Any:
            """Takes anything."""

        def several(lm: Any, pool: Any, *args: Any) -> Any:
            """Takes any number."""

        assert refusal("scorer", keywords) == "scorer 'keywords': options are named one by one, not as *kwargs"
        assert refusal("scorer", several) == "scorer 'several': options are named one by one, not as *args"

    def test_a_plugin_says_what_it_does(self) -> None:
        def silent(lm: Any, pool: Any) -> Any: ...

        assert refusal("scorer", silent) == (
            "scorer 'silent' has no docstring; `ablate list` shows its first paragraph"
        )


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("scorer", "a_scorr", "no scorer called 'a_scorr'; did you mean 'a_scorer'? (`ablate list scorers`)"),
        ("scorer", "zzz", "no scorer called 'zzz' (`ablate list scorers`)"),
        ("selector", "a_scorer", "no selector called 'a_scorer' (`ablate list selectors`)"),
        ("label_shift", "", "no label shift called '' (`ablate list label_shifts`)"),
    ],
)
def test_unknown_names(family: str, name: str, message: str) -> None:
    register("scorer", a_scorer)
    with pytest.raises(StudyError) as caught:
        get(family, name)
    assert str(caught.value) == message


@pytest.mark.parametrize(("family", "level"), [*DEFAULT_LEVELS.items(), ("behavior", "tabular"), ("measure", "risk")])
def test_what_ships(family: str, level: str) -> None:
    """Every family has a null level, or the one that the engine itself counts on; it is named without options."""
    assert level in names(family)
    get(family, level).options()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_ships_is_said_in_a_line(family: str) -> None:
    for name in names(family):
        doc = get(family, name).doc
        assert doc[0].isupper() or doc[0].isdigit(), name
        assert not doc.endswith(":"), name


# another distribution


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, as of an environment into which something was installed."""
    registry.load()
    monkeypatch.setattr(registry, "_plugins", dict(registry._plugins))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("third_party_scorers", None)


def install(site: Path, source: str) -> None:
    info = site / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[ablate.plugins]\nscorers = third_party_scorers\n", encoding="utf-8")
    (site / "third_party_scorers.py").write_text(source, encoding="utf-8")
    registry.load.cache_clear()


SOURCE = '''\
from ablate.api import FloatArray, Policy, Pool, scorer

@scorer
def verbosity(lm: Policy, pool: Pool, *, weight: float = 1.0) -> FloatArray:
    """Prefers long answers."""
    return weight * pool.lengths
'''


def test_a_plugin_of_another_distribution_is_found(site: Path) -> None:
    with pytest.raises(StudyError, match=r"^no scorer called 'verbosity' \(`ablate list scorers`\)$"):
        get("scorer", "verbosity")
    install(site, SOURCE)
    assert "verbosity" in names("scorer")
    plugin = get("scorer", "verbosity")
    assert plugin.doc == "Prefers long answers."
    assert plugin.options().model_dump() == {"weight": 1.0}
    assert plugin.function.__module__ == "third_party_scorers"
    pool = type("FakePool", (), {"lengths": np.array([[1, 2]])})
    np.testing.assert_array_equal(plugin(None, pool, weight=2.0), [[2, 4]])


def test_a_plugin_of_another_distribution_takes_no_name_of_ours(site: Path) -> None:
    install(site, SOURCE.replace("def verbosity", "def mean_logprob"))
    with pytest.raises(StudyError) as caught:
        names("scorer")
    assert str(caught.value) == (
        "scorer 'mean_logprob' is registered twice: third_party_scorers.mean_logprob and "
        "ablate.factors.scorers.mean_logprob.mean_logprob"
    )


def test_a_plugin_that_breaks_is_not_passed_over(site: Path) -> None:
    install(site, "raise ImportError('no such thing')\n")
    with pytest.raises(ImportError, match=r"^no such thing$"):
        get("scorer", "mean_logprob")
    registry.load.cache_clear()


def test_names_are_looked_up_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: Any) -> Any:
        raise AssertionError("entry points are read once")

    registry.load()
    monkeypatch.setattr(registry, "entry_points", never)
    assert "mean_logprob" in names("scorer")


def test_a_decorator_gives_the_function_back(site: Path) -> None:
    assert scorer(a_scorer) is a_scorer
    assert get("scorer", "a_scorer").function is a_scorer

"""How many organisms a planned study needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from laboratory import WHOLE, study

from ablate.errors import StudyError
from ablate.sizing import in_words, sized

OWN = study(text=WHOLE, name="whole")


def test_from_a_given_spread(tmp_path: Path) -> None:
    found = sized(OWN, tmp_path, effect_pp=15, sd_pp=8)
    assert (found["organisms"], found["contrasts"], found["sd_from"]) == (6, 4, "given")
    assert found["sd_pp"] == pytest.approx(8)
    assert found["smallest_p"] == 2 / 2**6
    assert 0.3 < found["power"] < 1
    larger = sized(OWN, tmp_path, effect_pp=5, sd_pp=8)
    assert larger["organisms_needed"] > found["organisms_needed"]
    assert larger["mde_pp"] == pytest.approx(found["mde_pp"]), "what can be seen does not depend on what is asked"


def test_from_the_results_of_a_study(whole: Path) -> None:
    found = sized(OWN, whole)
    assert found["sd_from"].startswith(f"{whole}, ")
    assert found["sd_pp"] > 0


def test_too_few_organisms_can_see_nothing(tmp_path: Path) -> None:
    small = study("organism.seeds=3", text=WHOLE, name="whole")
    found = sized(small, tmp_path, sd_pp=1)
    assert (found["power"], found["mde_pp"]) == (0, None)
    assert "80% power for no effect, however large; smallest p .250" in in_words(found)


def test_in_words(tmp_path: Path) -> None:
    first, own, needed = in_words(sized(OWN, tmp_path, sd_pp=8)).splitlines()
    assert first == "  power at 5%, max-T over 4 contrasts, sd 8.0 pp over organisms (given)"
    assert own.startswith("    6 organisms: power .")
    assert needed.startswith("    80% power for 10 pp needs ")
    assert needed.endswith(" organisms")


@pytest.mark.parametrize(
    ("sd_pp", "message"),
    [(None, r"no cube yet; .* with --sd, or name a folder of results with --out$"), (-1, r"^--sd: -1 is not > 0$")],
)
def test_without_a_spread_there_is_no_power(tmp_path: Path, sd_pp: float | None, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        sized(OWN, tmp_path, sd_pp=sd_pp)

"""The table of families: it lists what the conformance suite tests and what it sees refused, and its notes hold."""

import pytest
import transformers
from transformers import CONFIG_MAPPING

from epalm.cli.lms import families
from epalm.cli.tables import Record
from epalm.train.lm.load import lm_shapes
from epalm.train.lm.profile import find_profile
from epalm.weights import Source
from tests.architectures import FAMILIES, REFUSED

_SHARES = {"every block": 1.0, "every second": 1 / 2, "three of four": 3 / 4, "five of six": 5 / 6}


def _with_state(state: str) -> list[Record]:
    return [family for family in families().values() if family["state"] == state]


@pytest.mark.parametrize(("state", "suite"), [("tested", FAMILIES), ("refused", REFUSED)])
def test_the_table_is_the_suites(state: str, suite: dict[str, tuple[str, object]]) -> None:
    expected = {getattr(transformers, f"{name}Config").model_type for name, *_ in suite.values()}
    assert {family["name"] for family in _with_state(state)} == expected
    assert all(family["models"] for family in _with_state(state))


@pytest.mark.parametrize("family", _with_state("tested"), ids=lambda family: family["name"])
def test_the_note_says_what_is_odd_of_the_familys_defaults(family: Record) -> None:
    profile = find_profile(lm_shapes(Source(family["name"], option="lm.name"), CONFIG_MAPPING[family["name"]]()))
    assert profile.family == family["name"]
    assert profile.eager == ("plain attention" in family["note"])
    assert profile.post_norm == ("norms behind" in family["note"])
    share = sum(map(bool, profile.windows)) / len(profile.windows)
    stated = [value for words, value in _SHARES.items() if words in family["note"]]
    assert stated == (pytest.approx([share], abs=0.02) if share else [])

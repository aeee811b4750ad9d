"""The table of families: what it says of each holds of the model that transformers makes of the family's defaults."""

import pytest
from transformers import CONFIG_MAPPING

from epalm.errors import UsageError
from epalm.train.lm.families import Family, families
from epalm.train.lm.load import lm_shapes
from epalm.train.lm.profile import Profile, find_profile
from epalm.weights import Source

_PUBLISHED = {"lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}}  # not the class's defaults


def _profile(name: str) -> Profile:
    config = CONFIG_MAPPING[name](**_PUBLISHED.get(name, {}))
    return find_profile(lm_shapes(Source(name, option="lm.name"), config))


def _with_state(state: str) -> list[Family]:
    return [family for family in families().values() if family.state == state]


def test_every_family_has_a_state_and_models() -> None:
    assert {family.state for family in families().values()} == {"tested", "refused"}
    assert all(family.models for family in families().values()) and len(_with_state("tested")) >= 20


@pytest.mark.parametrize("family", _with_state("tested"), ids=lambda family: family.name)
def test_a_tested_family_has_a_profile_and_the_note_says_what_is_odd(family: Family) -> None:
    profile = _profile(family.name)
    assert profile.family == family.name
    assert profile.eager == ("plain attention" in family.note)
    assert profile.post_norm == ("norms behind" in family.note)
    assert any(profile.windows) == ("window" in family.note)
    if any(profile.windows):
        share = sum(map(bool, profile.windows)) / len(profile.windows)
        words = {"every block": 1, "every second": 0.5, "three of four": 0.75, "five of six": 5 / 6}
        assert [value for word, value in words.items() if word in family.note] == pytest.approx([share], abs=0.02)


@pytest.mark.parametrize("family", _with_state("refused"), ids=lambda family: family.name)
def test_a_refused_family_is_refused_by_its_structure(family: Family) -> None:
    with pytest.raises(UsageError, match=rf"\b{family.name}\b"):
        _profile(family.name)

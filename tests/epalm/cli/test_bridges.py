"""`epalm bridges`: what there is, and the settings of one."""

import json

from epalm.train.bridge.registry import bridges
from tests.conftest import Epalm


def test_bridges_are_listed_with_what_they_read_make_and_weigh(epalm: Epalm) -> None:
    rows = {one["name"]: one for one in json.loads(epalm("bridges", "--json").out)}
    assert set(rows) == set(bridges())
    assert (rows["epalm"]["groups"], rows["epalm"]["front"], rows["epalm"]["start"], rows["epalm"]["end"]) == (
        6,
        1,
        19,
        31,
    )
    assert (rows["avgpool"]["reads"][0], rows["avgpool"]["front"]) == ("pool:2x2", 65)
    prompts = {name: row["prompt"] for name, row in rows.items() if row["prompt"]}
    published = dict.fromkeys(("qp-l0", "avgpool", "linear-pool", "random-tokens"), 1)
    assert prompts == {**published, "qp-inner": 16, "cross-attention": 16}
    assert rows["limber"]["parameters"] == 1024 * 4096 + 4096
    shown = epalm("bridges").out
    assert all(name in shown for name in bridges())


def test_a_bridge_says_what_it_computes_and_takes(epalm: Epalm) -> None:
    shown = epalm("bridges", "random-tokens")
    assert "W RMSNorm(x)" in shown.err and "bridge.deviation" in shown.out
    assert "no settings of its own" in epalm("bridges", "mlp").err + epalm("bridges", "mlp").out
    missing = epalm("bridges", "qformer")
    assert missing.code == 1 and "no bridge 'qformer'" in missing.err and "Traceback" not in missing.err

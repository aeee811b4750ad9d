"""The packaged grids: the paper's rows carried over to models of other sizes, and the page that has them."""

import json
from pathlib import Path

from benchmarks.marks import require_marks
from epalm.grids import PAPER_BANK, carried_over, load_grid, masks_of
from epalm.recipes.config import load_config
from epalm.train.bridge.registry import bridges
from epalm.train.lm.injection import Injection
from tests.conftest import Epalm

INJECTED = ("1@0:1", "1@0:31", "1@19:31", "6@19:31")


def test_levels_fit_every_depth_and_every_token_is_read() -> None:
    assert {row.inject for row in load_grid("table-3").rows} == set(INJECTED)
    for blocks in range(1, 65):
        for inject in INJECTED:
            tokens, first, last = carried_over(inject, blocks)
            assert 0 <= first < last <= blocks and 1 <= tokens <= 6
            injection = Injection(tokens, first, last)
            assert {injection.group_of(block) for block in range(first, last)} == set(range(tokens))


def test_published_sizes_give_the_published_settings() -> None:
    assert [carried_over("6@19:31", blocks)[1:] for blocks in (32, 24, 8)] == [(19, 31), (11, 23), (4, 7)]
    assert [carried_over(inject, 32) for inject in INJECTED] == [(1, 0, 1), (1, 0, 31), (1, 19, 31), (6, 19, 31)]
    assert masks_of((24, 96), PAPER_BANK) == (24, 96) and masks_of((24, 96), (64, 128)) == (12, 12)


def test_the_page_has_every_row() -> None:
    page = Path(__file__).parents[2] / "docs/ablations.md"
    for name in (f"table-{number}" for number in range(1, 5)):
        grid = load_grid(name)
        before, after = require_marks(page, name)
        part = page.read_text()[len(before) : -len(after)]
        assert "100 steps each" in part
        for row in grid.rows:
            here = "/".join(map(str, masks_of(row.masks, (64, 128)))) if row.masks else row.here
            if row.inject:
                tokens, start, end = carried_over(row.inject, 8)
                here = f"{tokens}@{start}:{end}"
            assert f"| {row.label} | {here} | " in part
            assert all(f" {figure:.2f} |" in part for figure in row.published.values())


def test_a_grid_may_have_its_own_recipe_and_a_real_language_model(epalm: Epalm, tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm/config.json").write_text('{"model_type": "llama", "num_hidden_layers": 30}')
    words = ("bench", "levels-smollm2", "table-3", "--set", f"lm.name={tmp_path / 'lm'}", "--set", "optim.batch_size=8")
    plan = json.loads(epalm(*words, "--plan", "--json").out)
    rows, grid, config = plan[:6], load_grid("levels-smollm2"), load_config("playground-smollm2")
    for row, given in zip(rows, grid.rows, strict=True):
        assert row["settings"][: len(given.set)] == list(given.set)
    assert {row["steps"] for row in rows} == {config.optim.max_steps} != {row["steps"] for row in plan[6:]}
    for given in grid.rows[:-1]:
        model = load_config("playground-smollm2", given.set).model
        assert given.here == f"{model.tokens}@{model.start}:{model.end}"


def test_every_bridge_has_a_row_with_its_published_figures(epalm: Epalm) -> None:
    grid = load_grid("bridges")
    assert {row.bridge for row in grid.rows} - {None} == set(bridges())
    assert len(grid.seeds) == 3 and grid.chance and sum(not row.published for row in grid.rows) == 2  # mlp and blind
    page = Path(__file__).parents[2] / "docs/bench.md"
    assert require_marks(page, "bridges")

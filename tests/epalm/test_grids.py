"""The packaged grids: the paper's rows carried over to models of other sizes, and the page that has them."""

from pathlib import Path

from epalm.cli.bench.table import require_marks
from epalm.grids import PAPER_BANK, carried_over, grids, load_grid, masks_of
from epalm.train.lm.injection import Injection

INJECTED = ("1@0:1", "1@0:31", "1@19:31", "6@19:31")


def test_levels_fit_every_depth_and_every_token_is_read() -> None:
    assert {row.inject for row in load_grid("table-3").rows} == set(INJECTED)
    for blocks in range(1, 65):
        for inject in INJECTED:
            tokens, first, last = carried_over(inject, blocks)
            assert 0 <= first < last <= blocks and 1 <= tokens <= 6
            injection = Injection(tokens, first, last)
            assert {injection.token_of(block) for block in range(first, last)} == set(range(tokens))


def test_published_sizes_give_the_published_settings() -> None:
    assert [carried_over("6@19:31", blocks)[1:] for blocks in (32, 24, 8)] == [(19, 31), (11, 23), (4, 7)]
    assert [carried_over(inject, 32) for inject in INJECTED] == [(1, 0, 1), (1, 0, 31), (1, 19, 31), (6, 19, 31)]
    assert masks_of((24, 96), PAPER_BANK) == (24, 96) and masks_of((24, 96), (64, 128)) == (12, 12)


def test_the_page_has_every_row() -> None:
    page = Path(__file__).parents[2] / "docs/ablations.md"
    for name in grids()[:4]:
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

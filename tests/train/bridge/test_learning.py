"""Every bridge learns on the playground, from one set of all tokens: 30 points above what the text alone gives away."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from epalm import PLAYGROUND, api
from epalm.evaluate.decoding.options import DecodeChoice
from epalm.evaluate.request import ScoreRequest
from epalm.extract.request import ExtractRequest
from epalm.grids import Row, load_grid
from epalm.samples import Modality
from epalm.train.bridge.registry import bridges
from epalm.train.request import RecipeChanges, TrainRequest

pytestmark = pytest.mark.slow

GRID = load_grid("bridges")
ROWS = [row for row in GRID.rows if row.bridge]
SHORT = ['data.tasks=["qa"]', "optim.max_steps=240", "eval.every_steps=240"]


@dataclass(frozen=True)
class Pictures:
    """The playground's, extracted once."""

    root: Path

    def accuracy(self, row: Row) -> float:
        """Exact match × 100 of greedy answers to 300 test questions, trained as the grid has it, on questions alone."""
        settings = [*GRID.playground, *SHORT, *row.set, *row.playground, *row.settings()]
        cache, runs = str(self.root / "cache"), self.root / row.label
        changes = RecipeChanges(settings=settings)
        api.train(TrainRequest(True, Modality.IMAGE, PLAYGROUND, changes=changes, canary=False, cache=cache, runs=runs))
        greedy = DecodeChoice(num_beams=1)
        scores = api.score(ScoreRequest(decode=greedy, limit=300, metrics="exact match", cache=cache, runs=runs))
        return 100 * float(scores["tasks"]["qa"]["metrics"]["exact match"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """All tokens of the last six layers of every picture."""
    root = tmp_path_factory.mktemp("bridges")
    api.extract(ExtractRequest(Modality.IMAGE, PLAYGROUND, layers="last:6", tokens="all", cache=str(root / "cache")))
    return Pictures(root)


@pytest.fixture(scope="module")
def blind(pictures: Pictures) -> float:
    """What the text alone gives away."""
    return pictures.accuracy(Row(label="blind", set=("model.blind=true",)))


def test_the_grid_has_every_bridge() -> None:
    assert {row.bridge for row in ROWS} == set(bridges())


@pytest.mark.parametrize("row", ROWS, ids=[row.label for row in ROWS])
def test_a_bridge_learns_to_see(pictures: Pictures, blind: float, row: Row) -> None:
    assert pictures.accuracy(row) >= blind + 30

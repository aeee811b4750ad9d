"""A sample's way from the plan of a scoring to its score leads through few modules."""

from pathlib import Path

from benchmarks.walks import walk
from epalm.evaluate.decoding.options import DecodeChoice
from epalm.evaluate.request import ScoreRequest
from epalm.evaluate.run import execute_score, plan_score
from tests.scored_run import train_one
from tests.trials import Trial

MOST = 18  # modules


def test_a_sample_passes_few_modules_on_its_way_to_a_score(trial: Trial, tmp_path: Path) -> None:
    train_one(trial)
    request = ScoreRequest(
        runs=tmp_path / "runs", cache=str(trial.cache), decode=DecodeChoice(num_beams=1), metrics="exact match"
    )
    planned = plan_score(request)
    asked = next(one for one in planned.asked if one.sample.prompt)
    sample = asked.sample

    def score() -> None:
        assert execute_score(planned)["tasks"]["qa"]["scored"]

    walked = walk(score, {sample.id, sample.media, str(sample.prompt), asked.medium})
    print(walked.show())
    assert {"epalm.evaluate.run", "epalm.evaluate.decoding.decode", "epalm.evaluate.scoring"} <= walked.modules.keys()
    assert len(walked.modules) <= MOST and not walked.returns, walked.show()

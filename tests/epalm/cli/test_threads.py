"""Commands called from a thread that is not the main one, which alone may take signals."""

from concurrent.futures import ThreadPoolExecutor

from tests.scored_run import SHORT
from tests.trials import Trial

OWN = ("--set", "encoder.weights=trial/weights")


def test_every_stage_works_from_a_thread(trial: Trial) -> None:
    places = ("--cache", "trial/cache")
    picture = trial.media[0]
    with ThreadPoolExecutor(1) as thread:
        for words in (
            (
                "extract",
                "-m",
                "image",
                "--data",
                "trial/world",
                "--weights",
                "trial/weights",
                "--layers",
                "last:3",
                *places,
            ),
            ("train", "--from-cache", "--data", "trial/world", *places, "--run", "cached", *SHORT),
            ("train", "-m", "image", "--data", "trial/world", "--run", "live", *SHORT, "--set", "model.tokens=3", *OWN),
            ("score", "--run", "cached", *places, "--metrics", "exact match"),
            ("predict", picture, "what is it?", "--run", "cached"),
        ):
            done = thread.submit(trial.epalm, *words).result()
            assert done.code == 0, done.err

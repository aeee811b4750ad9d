"""What a report draws of a run's metrics."""

from epalm.evaluate.report.scored_runs import curve


def test_a_long_curve_is_averaged_and_a_short_one_is_not() -> None:
    lines = [{"step": step, "loss": float(step % 2)} for step in range(1, 2001)]
    steps, values = curve(lines, "loss", points=500)
    assert len(steps) == 500 and set(values) == {0.5} and steps[0] == 2.5
    assert curve(lines[:3], "loss") == ([1.0, 2.0, 3.0], [1.0, 0.0, 1.0])
    assert curve(lines, "val_loss") == ([], [])

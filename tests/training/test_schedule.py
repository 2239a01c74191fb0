from __future__ import annotations

import pytest

from clrelkt.training.recipe import DevSettings, Optimisation
from clrelkt.training.schedule import Progress, one_cycle

ENDLESS = DevSettings(patience=1000, every_steps=1)


def rates(optimisation: Optimisation, scores: list[float]) -> list[float]:
    progress = Progress(optimisation.learning_rate)
    found = []
    for score in scores:
        progress.judge(score, 0, optimisation, ENDLESS)
        found.append(progress.learning_rate)
    return found


def test_halved_at_the_first_sixth_and_eleventh_bad_evaluation() -> None:
    optimisation = Optimisation(epochs=1, learning_rate=1.0, halve_first=1, halve_every=5)
    found = rates(optimisation, [0.5] + [0.5] * 12)
    assert found == [1.0] + [0.5] * 5 + [0.25] * 5 + [0.125] * 2


def test_halved_at_every_bad_evaluation() -> None:
    optimisation = Optimisation(epochs=1, learning_rate=1.0, halve_first=1, halve_every=1)
    assert rates(optimisation, [0.5, 0.4, 0.3, 0.5]) == [1.0, 0.5, 0.25, 0.125]


def test_halved_from_the_third_on_at_every_second() -> None:
    optimisation = Optimisation(epochs=1, learning_rate=1.0, halve_first=3, halve_every=2)
    assert rates(optimisation, [0.5] * 7) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_only_bad_evaluations_in_a_row_count() -> None:
    optimisation = Optimisation(epochs=1, learning_rate=1.0, halve_first=2, halve_every=5)
    found = rates(optimisation, [0.5, 0.4, 0.6, 0.5, 0.5, 0.7, 0.1])
    assert found == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_the_floor() -> None:
    optimisation = Optimisation(epochs=1, learning_rate=1.0, rate_floor=0.3)
    assert rates(optimisation, [0.5] * 5) == [1.0, 0.5, 0.3, 0.3, 0.3]


@pytest.mark.parametrize(
    ("epoch", "first_stop_epoch", "stops_at"), [(0, 0, 3), (5, 2, 3), (2, 2, 3), (1, 2, None)]
)
def test_patience(epoch: int, first_stop_epoch: int, stops_at: int | None) -> None:
    dev = DevSettings(patience=3, every_steps=1, first_stop_epoch=first_stop_epoch)
    optimisation = Optimisation(epochs=9, learning_rate=1.0)
    progress = Progress(1.0)
    verdicts = [progress.judge(score, epoch, optimisation, dev) for score in (0.5, 0.1, 0.5, 0.2)]
    assert [verdict.keep for verdict in verdicts] == [True, False, False, False]
    stops = [number for number, verdict in enumerate(verdicts) if verdict.stop]
    assert stops == ([] if stops_at is None else [stops_at])


def test_a_better_score_is_kept_and_starts_patience_anew() -> None:
    dev = DevSettings(patience=2, every_steps=1)
    optimisation = Optimisation(epochs=9, learning_rate=1.0)
    progress = Progress(1.0)
    verdicts = [progress.judge(score, 0, optimisation, dev) for score in (0.0, 0.0, 0.1, 0.1)]
    assert [verdict.keep for verdict in verdicts] == [True, False, True, False]
    assert not any(verdict.stop for verdict in verdicts)
    assert progress.best == 0.1


def test_mean_loss_since_the_last_evaluation() -> None:
    progress = Progress(1.0)
    assert progress.take_mean_loss() is None
    for loss in (1.0, 2.0, 6.0):
        progress.add_loss(loss)
    assert progress.take_mean_loss() == 3.0
    assert progress.take_mean_loss() is None


def test_curve_since_the_last_evaluation() -> None:
    progress = Progress(1.0)
    assert progress.take_curve() == []
    for loss in (1.0, 2.5):
        progress.add_loss(loss)
    assert progress.take_curve() == [1.0, 2.5]
    # 90 losses are too many: 30 means of three each.
    for loss in range(90):
        progress.add_loss(loss)
    assert progress.take_curve() == [3.0 * n + 1 for n in range(30)]
    for loss in range(41):
        progress.add_loss(loss)
    assert progress.take_curve() == [*(2.0 * n + 0.5 for n in range(20)), 40.0]


def test_json() -> None:
    progress = Progress(1e-5, best=0.1 + 0.2, bad=2, losses=3, loss_sum=1 / 3)
    assert Progress.from_json(progress.to_json()) == progress


def test_one_cycle() -> None:
    assert one_cycle(2.0, 0.25, 0.0) == pytest.approx(0.08)
    assert one_cycle(2.0, 0.25, 0.25) == pytest.approx(2.0)
    assert one_cycle(2.0, 0.25, 0.625) == pytest.approx(1.0)
    assert one_cycle(2.0, 0.25, 1.0) == pytest.approx(0.0)
    rates = [one_cycle(2.0, 0.25, step / 100) for step in range(101)]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)

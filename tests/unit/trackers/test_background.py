"""Whatever a tracker does, training goes on and is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adios_tme.trackers import background
from adios_tme.trackers.background import BackgroundTracker
from adios_tme.trackers.base import RunToTrack
from adios_tme.trackers.run_ids import RunIds
from tests.unit.trackers.fakes import (
    PATIENCE_SECONDS,
    FakeTracker,
    failing_at,
    run_to_track,
    waiting_for,
)

TRIED_AGAIN = (
    "Training goes on, metrics.jsonl has every line, and the tracker is tried again when the run "
    "resumes."
)


class Tracked:
    """A tracker on its thread, and what it was told."""

    def __init__(
        self, folder: Path, before: Callable[[str], None] = lambda what: None, **facts: Any
    ) -> None:
        self.fakes: list[FakeTracker] = []
        self._before = before
        self._last_step = facts.pop("last_step", None)
        run = run_to_track(folder, **facts)
        ids = RunIds(folder / "trackers.json")
        self.tracker = BackgroundTracker("fake", self._open, run, ids)
        self.tracker.store_init_configuration({"lr": 1})

    def _open(self, run: RunToTrack) -> FakeTracker:
        fake = FakeTracker(run, self._before, last_step=self._last_step)
        self.fakes.append(fake)
        return fake

    def tell(self, *steps: int) -> Tracked:
        for step in steps:
            self.tracker.log({"loss": [step, None]}, step)
        return self

    def told(self) -> list[Any]:
        """What it was told, once it has finished."""
        self.tracker.finish()
        return self.fakes[0].told if self.fakes else []


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a tracker that hangs waits for, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_it_is_told_everything_in_order(tmp_path: Path) -> None:
    tracked = Tracked(tmp_path).tell(1, 2)
    tracked.tracker.log_images({"masks": tmp_path}, 2)
    tracked.tracker.log_images({}, 3)
    assert tracked.told() == [
        {"lr": 1},
        (1, {"loss/1": 1.0}),
        (2, {"loss/1": 2.0}),
        (2, {"masks": tmp_path}),
        "finished",
    ]


def test_it_hears_of_a_run_that_failed(tmp_path: Path) -> None:
    tracked = Tracked(tmp_path)
    tracked.tracker.finish(failed=True)
    assert tracked.fakes[0].told[-1] == "failed"


@pytest.mark.parametrize(("last_step", "expected"), [(None, [4]), (1, [2, 3, 4]), (2, [3, 4])])
def test_steps_that_a_tracker_has_are_not_told_again(
    last_step: int | None, expected: list[int], tmp_path: Path
) -> None:
    Tracked(tmp_path).tell(1, 2, 3).told()
    resumed = Tracked(tmp_path, last_step=last_step, iteration=1).tell(2, 3, 4)
    assert [told[0] for told in resumed.told()[1:-1]] == expected


def test_it_says_whether_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Tracked(tmp_path).told()
    Tracked(tmp_path).told()
    assert caplog.messages == [
        "fake began run new: nowhere",
        "fake goes on in run new: nowhere",
    ]


def test_one_that_does_not_start_is_switched_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Tracked(tmp_path, failing_at("start")).tell(1).told() == []
    assert caplog.messages == [
        "fake: switched off, because it did not start (ConnectionError: no network for start). "
        + TRIED_AGAIN
    ]


def test_one_that_leaves_the_process_at_its_start_only_switches_itself_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(what: str) -> None:
        raise SystemExit(1)

    assert Tracked(tmp_path, leave).tell(1).told() == []
    assert caplog.messages == [
        f"fake: switched off, because it did not start (SystemExit: 1). {TRIED_AGAIN}"
    ]


def test_one_that_fails_three_times_in_a_row_is_switched_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = failing_at("line 2", "line 3", "line 4")
    told = Tracked(tmp_path, failing).tell(1, 2, 3, 4, 5).told()
    assert told == [{"lr": 1}, (1, {"loss/1": 1.0}), "finished"]
    assert caplog.messages == [
        "fake: did not take the line of iteration 2 (ConnectionError: no network for line 2).",
        "fake: did not take the line of iteration 3 (ConnectionError: no network for line 3).",
        "fake: switched off, because it failed 3 times in a row (ConnectionError: no network for "
        f"line 4). {TRIED_AGAIN}",
    ]


def test_one_that_recovers_stays_on(tmp_path: Path) -> None:
    failing = failing_at("settings", "line 1", "line 3", "line 4")
    told = Tracked(tmp_path, failing).tell(1, 2, 3, 4, 5).told()
    assert told == [(2, {"loss/1": 2.0}), (5, {"loss/1": 5.0}), "finished"]


def test_one_that_fails_to_finish_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Tracked(tmp_path, failing_at("finish")).tell(1).told()
    assert caplog.messages == [
        "fake: did not finish properly (ConnectionError: no network for finish)."
    ]


def test_one_that_hangs_at_its_start_is_switched_off_and_closed_should_it_wake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wakes = threading.Event()
    tracked = Tracked(tmp_path, waiting_for(wakes, "start"), limit_seconds=0.01).tell(1)
    assert tracked.told() == []
    assert caplog.messages == [
        f"fake: switched off, because it did not start within 0 s. {TRIED_AGAIN}"
    ]
    wakes.set()
    tracked.tracker._thread.join()
    assert tracked.told() == ["finished"]
    assert not (tmp_path / "trackers.json").exists()


def test_one_that_hangs_at_a_line_does_not_keep_training(
    tmp_path: Path,
    never: threading.Event,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "MAX_WAITING", 5)
    hangs = threading.Event()
    tracked = Tracked(tmp_path, waiting_for(never, "line 1", hangs)).tell(1)
    assert hangs.wait(PATIENCE_SECONDS)
    assert tracked.tell(*range(2, 10)).told() == [{"lr": 1}]
    assert caplog.messages == [
        f"fake: switched off, because it hangs: 5 lines wait for it. {TRIED_AGAIN}"
    ]


def test_one_that_hangs_at_the_end_is_left_behind(
    tmp_path: Path, never: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    tracked = Tracked(tmp_path, waiting_for(never, "finish"), limit_seconds=1)
    tracked.told()
    assert caplog.messages == [
        "fake: did not finish within 1 s, so that its last lines may be missing there. "
        "metrics.jsonl has all of them."
    ]

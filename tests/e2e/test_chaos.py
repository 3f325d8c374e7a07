from pathlib import Path

import pytest

from disp_engine.attacks.poison import PoisonedSet
from tests.e2e.chaos import VICTIMS, Undisturbed, Victim, run_round, run_undisturbed


@pytest.fixture(scope="module")
def undisturbed(data: PoisonedSet, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"), data)


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_job_outlives_a_kill_and_gives_the_artifacts_of_an_undisturbed_run(
    data: PoisonedSet, undisturbed: Undisturbed, tmp_path: Path, victim: Victim
) -> None:
    # Early enough for a job that has more of the machine than the undisturbed one had.
    done = run_round(tmp_path, data, undisturbed, victim, after_s=undisturbed.seconds / 4)
    assert done.hit, "the job had ended before the kill"
    assert done.succeeded and done.identical, done
    assert done.attempts == (1 if victim == "gateway" else 2)

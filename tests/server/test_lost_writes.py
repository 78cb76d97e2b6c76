"""Power failures: what was acknowledged is there though all that was not fsynced is lost."""

from __future__ import annotations

import history
import pytest
from conftest import soak_seconds
from disks import LostWrites
from test_kill import CLIENTS, has_new_calls, kill_in_a_stream_of_changes


def cut_power(serve, bundle, chance, folder, rounds: int, longest: float) -> int:
    """Kills a server at random moments, each with the loss of what was not fsynced."""
    disk = LostWrites(folder)
    server = serve(bundle, store=folder / "store", env=disk.environment)
    new = has_new_calls(server.api)
    seed = int(chance.integers(1 << 32))
    clients = [history.Client(number, seed, new) for number in range(CLIENTS)]
    lost = 0
    for _ in range(rounds):
        lost += kill_in_a_stream_of_changes(
            server, clients, chance, longest, lambda: disk.cut_power(server.store)
        )
    return lost


def test_what_was_acknowledged_outlives_a_power_failure(serve, features_bundle, chance, tmp_path):
    lost = cut_power(serve, features_bundle, chance, tmp_path, rounds=3, longest=1.5)
    print(f"{lost} files were lost or shorter")


@pytest.mark.soak
def test_power_failures_for_long(serve, features_bundle, chance, tmp_path):
    import time

    end = time.monotonic() + soak_seconds()
    round_ = 0
    while time.monotonic() < end:
        folder = tmp_path / str(round_)
        folder.mkdir()
        cut_power(serve, features_bundle, chance, folder, rounds=5, longest=4)
        round_ += 1

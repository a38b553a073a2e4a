"""Ctrl-C ends the step that was begun; a second one interrupts."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from forked import Forked

from pci_core.checkpoint import CHECKPOINT, LOSSES, WEIGHTS
from pci_core.stopping import Stopping
from pci_core.weights import load_safetensors

TRAIN = """
import sys
from pci_core.cli import main
sys.argv = ["pci", "train", *sys.argv[1:]]
main()
"""


def test_first_is_a_wish_second_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stopping("soon") as stopping:
        assert not stopping.asked
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked and "soon" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_left_alone_where_not_active_or_in_a_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stopping(active=False), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Stopping() as stopping:
            seen.append((signal.getsignal(signal.SIGINT), stopping.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.slow
def test_ctrl_c_at_the_command_line_leaves_a_checkpoint(own_recipe: Path, tmp_path: Path) -> None:
    """In the first minute, when none was due by time; the same command then goes on and ends with the weights of an uncut run."""

    def start(runs: str, epochs: int) -> Forked:
        return Forked(TRAIN, own_recipe, "--runs", tmp_path / runs, "--epochs", epochs, "--device", "cpu")

    cut = start("cut", 4000)
    models = tmp_path / "cut" / "own" / "models"
    for _ in range(6000):
        if list(models.glob(f".training-*/{LOSSES}")):
            break
        time.sleep(0.02)  # each epoch that passes meanwhile is trained again below
    cut.send_signal(signal.SIGINT)
    out, err = cut.communicate(timeout=120)
    assert cut.returncode == 130 and "Traceback" not in err
    assert "stopping after this batch" in err and "run the same command to go on" in err and "Stopped in epoch" in out
    [kept] = models.glob(f".training-*/{CHECKPOINT}")
    reached = len(kept.with_name(LOSSES).read_text().splitlines()) - 1
    assert 0 < reached < 4000
    for runs in ("cut", "whole"):
        again = start(runs, reached + 2)
        out, err = again.communicate(timeout=300)
        assert again.returncode == 0, err
    weights = [next((tmp_path / runs / "own" / "models").glob(f"pci*/{WEIGHTS}")) for runs in ("cut", "whole")]
    first, second = (load_safetensors(path)[0] for path in weights)
    assert all((first[name] == second[name]).all() for name in first)

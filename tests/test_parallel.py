"""Work on a local Dask cluster of real processes: same bytes, killed workers, bounded memory, what is wrong told before the start."""

from __future__ import annotations

import builtins
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_tasks import fail_at, later_ones_first, threads
from test_cli import pci  # noqa: F401  # the command line as a fixture

from pci_core import parallel
from pci_core import recipe as recipes
from pci_core.errors import ClusterError, ImageError
from pci_core.features import read_features
from pci_core.parallel import AHEAD, in_order, on_cluster
from pci_core.run import Run

distributed = pytest.importorskip("distributed", reason='the extra "cluster" is not installed')


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two worker processes with a nanny each, which starts another where one dies."""
    folder = tmp_path_factory.mktemp("dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(folder), silence_logs=50
    ) as made:
        yield made


@pytest.fixture
def none_left(tmp_path: Path) -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, local_directory=str(tmp_path / "dask"), silence_logs=50) as made:
        yield made


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- the results


@pytest.mark.slow
def test_cells_and_features_are_those_of_one_process(pci, own_recipe: Path, tmp_path: Path, cluster: Any) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    status, out, err = pci("cells", own_recipe, "--dask", cluster.scheduler_address, "--runs", tmp_path / "dask")
    assert status == 0, err
    assert f"Dask cluster at {cluster.scheduler_address}: 2 workers" in out and "8/8" in err  # and the bar goes on as ever
    status, out, err = pci("features", own_recipe, "designed", "--dask", cluster.scheduler_address, "--runs", tmp_path / "dask")
    assert status == 0, err
    assert "Measuring designed features of 32 cells, 2 Dask workers" in out
    local = Run(own_recipe, tmp_path / "here", jobs=1, quiet=True)
    expected = local.features("designed")["designed"]
    assert hashes(tmp_path / "dask" / "own" / "cells") == hashes(local.folder / "cells")
    got = read_features(tmp_path / "dask" / "own" / "features" / "designed.h5ad", local.cells())
    np.testing.assert_array_equal(got.X, expected.X)
    assert list(got.var_names) == list(expected.var_names)


@pytest.mark.slow
def test_workers_killed_while_they_draw_and_while_they_crop(tmp_path: Path, cluster: Any) -> None:
    small = recipes.load("simulated-yeast").replace(source={"proteins": 2})
    run = Run(small, tmp_path / "dask", dask=cluster.scheduler_address, quiet=True)
    seen: list[int] = []

    def drawn() -> int:
        return len(list(run.folder.glob("*-fields/images/[!.]*.tif")))

    def cropped() -> int:
        return sum(p.stat().st_size > 300 for p in run.folder.glob("*-cells/crops.npy"))  # 256 bytes are its header

    def kill() -> None:
        with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
            for progress in (drawn, cropped):
                while not progress():
                    time.sleep(0.005)
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
                seen.append(progress())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    got = run.cells()
    killer.join(5)
    assert len(seen) == 2 and 0 < seen[0] < 8 and seen[1] == 1, "each was killed on the way: with fields to draw, and with fields to crop"
    local = Run(small, tmp_path / "here", jobs=1, quiet=True)
    assert got.sha256 == local.cells().sha256 and len(got.table["field"].unique()) == 8
    assert hashes(run.folder / "fields") == hashes(local.folder / "fields"), "nothing is missing, and nothing half-written is left"
    assert hashes(run.folder / "cells") == hashes(local.folder / "cells")


def test_order_and_no_more_under_way_than_the_reader_takes(tmp_path: Path, cluster: Any) -> None:
    sent: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for i in range(200):
            sent.append(i)
            yield (i,)

    with on_cluster(cluster.scheduler_address, tmp_path, quiet=True):
        results = in_order(later_ones_first, tasks(), 200)
        first = [next(results) for _ in range(12)]
        time.sleep(0.5)
        assert len(sent) <= 12 + AHEAD * 2
        results.close()  # what is under way is cancelled
    assert [i for i, _ in first] == list(range(12)) and len({pid for _, pid in first}) == 2
    assert list(in_order(fail_at, ((i, 9) for i in range(3)), 3, jobs=1)) == [0, 1, 2], "behind the block, work is done here again"


def test_one_thread_and_the_tasks_own_errors(tmp_path: Path, cluster: Any) -> None:
    with on_cluster(cluster.scheduler_address, tmp_path, quiet=True):
        assert list(in_order(threads, [()], 1)) == [1]
        with pytest.raises(ImageError, match="field 3 is broken"):
            list(in_order(fail_at, ((i, 3) for i in range(40)), 40))
        with pytest.raises(TimeoutError, match="my own"):  # not taken for a late answer of the cluster
            list(in_order(fail_at, [(-1, 0)], 1))


def test_a_step_can_stay_on_this_machine(tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with on_cluster(cluster.scheduler_address, tmp_path, quiet=True):
        assert list(in_order(os.getpid, [()], 1, jobs=1, local=True)) == [os.getpid()]
    assert "on this machine, not on the Dask cluster" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (distributed.KilledWorker("field_cells", None, 3), "one task ended 4 Dask workers .* memory"),
        (distributed.CancelledError("scheduler-connection-lost"), "connection to the Dask scheduler .* was lost"),
        (ConnectionResetError("reset by peer"), "connection to the Dask scheduler .* was lost .reset by peer"),
    ],
)
def test_what_dask_says_at_the_end_becomes_one_message(tmp_path: Path, cluster: Any, error: Exception, told: str) -> None:
    class Future:  # four workers killed in earnest take half a minute
        status = "error" if isinstance(error, distributed.KilledWorker) else "pending"

        def result(self, timeout: float) -> None:
            raise error

    with on_cluster(cluster.scheduler_address, tmp_path, quiet=True), pytest.raises(ClusterError, match=told):
        made = parallel._current.get()
        assert made is not None
        made._result(Future())


# --- told before the work starts


def test_no_scheduler_there(pci, own_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", 0.5)
    status, _, err = pci("cells", own_recipe, "--dask", "tcp://127.0.0.1:9", "--quiet")
    assert status == 1 and "no Dask scheduler at tcp://127.0.0.1:9 within 0.5 s" in err and "Traceback" not in err
    status, _, err = pci("cells", own_recipe, "--dask", "tcp://nowhere", "--quiet")
    assert status == 1 and "'tcp://nowhere' is no address of a Dask scheduler" in err and "Traceback" not in err


def test_no_worker_there_or_left(tmp_path: Path, none_left: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(ClusterError, match="has no worker, and none came within 0.5 s.*dask worker"),
        on_cluster(none_left.scheduler_address, tmp_path),
    ):
        pass
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", 20.0)
    monkeypatch.setattr(parallel, "ALONE_SECONDS", 0.5)
    monkeypatch.setattr(parallel, "_LOOK_SECONDS", 0.2)
    none_left.scale(1)
    with on_cluster(none_left.scheduler_address, tmp_path, quiet=True):
        none_left.scale(0)
        with pytest.raises(ClusterError, match="has had no worker for 0.5 s"):
            list(in_order(later_ones_first, ((i,) for i in range(99)), 99))


def test_workers_of_another_version(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parallel._versions
    calls: list[dict[str, str]] = []

    def other(told: dict[str, Any]) -> dict[str, str]:
        calls.append(real(told))
        return calls[-1] | ({"pci-core": "9.9"} if len(calls) == 1 else {})  # the first is this process

    monkeypatch.setattr(parallel, "_versions", other)
    with (
        pytest.raises(ClusterError, match=r"the Dask scheduler at .* other versions .*pci-core .*\(here 9.9\)"),
        on_cluster(cluster.scheduler_address, tmp_path),
    ):
        pass
    real_differences, calls = parallel._differences, []
    asked: list[str] = []

    def of_workers_only(mine: dict[str, str], theirs: dict[str, str]) -> str:
        asked.append("")
        return real_differences(mine, theirs) if len(asked) > 1 else ""

    monkeypatch.setattr(parallel, "_differences", of_workers_only)
    with (
        pytest.raises(ClusterError, match=r"2 of 2 Dask workers .* other versions .*pci-core .*\(here 9.9\)"),
        on_cluster(cluster.scheduler_address, tmp_path),
    ):
        pass
    assert len(calls) == 4 and all(v["numpy"] == np.__version__ for v in calls)


def test_workers_of_other_code_or_that_do_not_see_the_files(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ClusterError, match=r"2 of 2 Dask workers .*cannot read .*image.tif \(No such file"),
        on_cluster(cluster.scheduler_address, tmp_path, tmp_path / "image.tif"),
    ):
        pass
    monkeypatch.setattr(parallel, "source_hash", lambda: "another")
    with pytest.raises(ClusterError, match="has other sources"), on_cluster(cluster.scheduler_address, tmp_path):
        pass
    monkeypatch.undo()
    # a folder of the same name on another machine: what this process puts into its own is not there
    monkeypatch.setattr(parallel, "write_text", lambda path, text: Path(path).touch())
    monkeypatch.setattr(parallel, "_SEE_SECONDS", 0.0)
    with pytest.raises(ClusterError, match="does not see this folder"), on_cluster(cluster.scheduler_address, tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "distributed":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClusterError, match=r"pip install \"pci-core\[cluster\]\""), on_cluster("tcp://127.0.0.1:9", tmp_path):
        pass


def test_distributed_is_imported_only_when_asked_for() -> None:
    code = "import sys, pci_core.parallel, pci_core.baselines.percell; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

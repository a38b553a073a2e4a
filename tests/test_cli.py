"""The command line: exit status and one message; no traceback for a user's mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from test_keras_h5 import keras_file, random_model

from pci_core import cli, pretrained, recipe


@pytest.fixture
def pci(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pci", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_recipes_are_listed(pci) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = pci("recipes")
    assert status == 0 and [line.split()[0] for line in out.splitlines()] == recipe.names()


def test_the_whole_path(pci, own_recipe: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    quick = ("--device", "cpu", "--jobs", "1", "--quiet")
    status, out, _ = pci("cells", own_recipe, *quick)
    assert status == 0 and "32 cells of 4 images" in out
    assert pci("train", own_recipe, "--epochs", "1", *quick)[0] == 0
    status, out, _ = pci("features", own_recipe, "conv3", "pixels", "--epochs", "1", *quick)
    assert status == 0
    assert [Path(line).name for line in out.splitlines() if line.endswith(".h5ad")] == ["conv3+epochs=1.h5ad", "pixels.h5ad"]
    assert all(Path(line).with_suffix(".parquet").exists() for line in out.splitlines() if line.endswith(".h5ad"))


def test_benchmark_on_the_screen_and_on_disk(pci, own_recipe: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    quick = ("--device", "cpu", "--jobs", "1", "--quiet", "--classifiers", "knn")
    status, out, err = pci("benchmark", own_recipe, "untrained_conv1", "pixels", *quick)
    assert status == 0, err
    assert "32 cells, 2 classes of 'protein', 4 of 'image'; chance 0.500" in out and "untrained_conv1" in out
    tables = tmp_path / "runs" / "own" / "tables"
    assert {"benchmark.json", "benchmark_scores.parquet", "benchmark_scores.csv", "benchmark_sets.parquet"} <= {
        p.name for p in tables.iterdir()
    }
    status, _, err = pci("benchmark", own_recipe, "pixels", "--table", tmp_path / "no.csv", *quick)
    assert status == 1 and err.startswith("pci: ") and "no.csv" in err
    assert pci("benchmark", own_recipe, "pixels", "--seeds", "one", *quick)[0] == 2


def test_weights_of_a_run_in_a_file(pci, own_recipe: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "own-pci.safetensors"
    status, told, err = pci("weights", "export", own_recipe, "--out", out, "--epochs", "1", "--device", "cpu", "--quiet")
    assert status == 0 and out.exists(), err
    status, told, _ = pci("weights", "show", out)
    assert status == 0 and "--epochs 1" in told and '"pairs"' in told
    status, _, err = pci("weights", "show", own_recipe)
    assert status == 1 and "no safetensors file" in err


def test_any_key_of_a_training_can_be_set(pci, own_recipe: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    quick = ("--device", "cpu", "--quiet", "--epochs", "1")
    changes = ("--set", "pretext=contrast", "--set", "encoder = residual", "--set", "learning_rate=1e-3", "--set", "batch_size=4")
    out = tmp_path / "kept.safetensors"
    status, *_ = pci("weights", "export", own_recipe, "--out", out, *quick, *changes)
    _, card = pretrained.load_encoder(out)
    assert status == 0 and card["command"].endswith(
        "--set pretext=contrast --set 'encoder = residual' --set learning_rate=1e-3 --set batch_size=4"
    )
    assert card["architecture"]["encoder"] == "residual"
    assert card["training"]["learning_rate"] == 1e-3 and card["training"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "pretext"), "KEY=VALUE"),
        (("--seed", "1", "--set", "seed=2"), "given twice"),
        (("--set", "pretxt=contrast"), "Did you mean pretext"),
        (("--set", "batch_size=many"), "must be int"),
    ],
)
def test_what_cannot_be_set_is_told(pci, arguments: tuple[str, ...], said: str) -> None:  # type: ignore[no-untyped-def]
    status, _, err = pci("train", "simulated-human", *arguments)
    assert status != 0 and said in " ".join(err.replace("│", " ").split())


def test_a_keras_network_from_file_to_features(pci, own_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PCI_CACHE", str(tmp_path / "cache"))
    theirs = keras_file(random_model(1, 0.05)).write(tmp_path / "theirs.h5")
    quick = ("--device", "cpu", "--jobs", "1", "--quiet")
    status, _, err = pci("features", own_recipe, "conv1", "--weights", theirs, *quick)
    assert status == 1 and "made for ['gfp', 'rfp']" in err and "pci weights import FILE --channels protein,marker" in err
    status, told, err = pci("weights", "import", theirs)
    assert status == 0 and "gfp (protein, also protein, green)" in told and "assumed: channel names and rescaling" in told, err
    ours = tmp_path / "ours.safetensors"
    status, told, err = pci("weights", "import", theirs, "--out", ours, "--channels", "protein, marker", "--recipe", own_recipe)
    assert status == 0 and "protein (protein), marker (structural)" in told and "assumed" not in told, err
    status, told, _ = pci("weights", "show", ours)
    assert status == 0 and json.loads(told)["source"]["file"] == "theirs.h5"
    assert json.loads(pci("weights", "show", theirs)[1])["architecture"]["kind"] == "pci"
    monkeypatch.chdir(tmp_path)
    status, out, err = pci("features", own_recipe, "conv1", "--weights", ours.name, *quick)
    assert status == 0 and Path(out.strip()).name == "conv1+weights=ours.h5ad", err
    status, out, err = pci("benchmark", own_recipe, "conv1", "--weights", ours, "--classifiers", "knn", *quick)
    assert status == 0 and "conv1 … conv5: the network ours.safetensors" in out, err


def test_networks_are_listed_and_shown(pci, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path))  # nothing is downloaded
    status, out, _ = pci("weights", "list")
    names = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert status == 0 and names == [*pretrained.names(), "authors-yeast", "authors-human", "authors-human-filtered"]
    assert out.count("licence") >= len(names) and "1,165,713 cells" in out and "number of cells unknown" in out
    assert json.loads(pci("weights", "show", "authors-human")[1])["um_per_px"] == 0.64
    assert json.loads(pci("weights", "show", "simulated-human")[1])["simulated"] is True
    status, _, err = pci("weights", "show", "simulated-humn")
    assert status == 1 and "Did you mean simulated-human" in err


@pytest.mark.parametrize("more", [("--epochs", "1"), ("--scratch",), ("--seed", "1"), ("--width", "0.1"), ("--start", "simulated-yeast")])
def test_weights_and_training_exclude_one_another(pci, more: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    status, _, err = pci("features", "authors-toy-yeast", "--weights", "authors-yeast", *more)
    assert status == 2 and more[0] in err
    status, _, err = pci("benchmark", "authors-toy-yeast", "--weights", "authors-yeast", "--seeds", "0,1")
    assert status == 2 and "--seeds" in err


def test_info_says_what_to_expect(pci, own_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("pci_core.info.probe_speed", lambda *_: (100.0, 1000.0))
    status, out, err = pci("info", own_recipe)
    assert status == 0, err
    assert "32 of 4 images, estimated from 6 of 8 fields" in out
    assert "nothing made yet" in out and "cpu" in out and "pairs/s" in out and "not the paper" not in out
    keys = 'weigh = "images"\npair_by = "protein"\nleave_out_varying = 0.1\ntargets = "random"'
    own_recipe.write_text(own_recipe.read_text().replace("epochs = 2", f"epochs = 2\n{keys}"))
    line = "not the paper pair_by = protein, weigh = images, leave_out_varying = 0.1 (twice the training"
    assert line in pci("info", own_recipe)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cells", "simulated-humn"), "unknown recipe 'simulated-humn'. Did you mean simulated-human"),
        (("features", "authors-toy-yeast", "conv9"), "unknown feature set 'conv9'. Did you mean conv"),
        (("train", "authors-toy-yeast", "--model", "autoencodr"), "Did you mean autoencoder"),
        (("train", "authors-toy-yeast", "--device", "cuda:99"), "cuda:99"),
        (("train", "authors-toy-yeast", "--epochs", "0"), "epochs >= 1"),
        (("features", "authors-toy-yeast", "conv4", "--weights", "authors-yeats"), "Did you mean authors-yeast"),
        (("features", "authors-toy-yeast", "conv4", "--weights", "authors-yeast"), "not in the mirror"),
        (("features", "authors-toy-yeast", "conv4", "--weights", "net.pth"), "was not opened"),
        (("features", "authors-toy-yeast", "conv4", "--weights", "net.h5"), "net.h5 is not there"),
        (("weights", "import", "net.h5"), "net.h5 is not there"),
    ],
)
def test_mistakes_end_with_one_message(
    pci, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path))  # no network, whatever comes
    status, _, err = pci(*arguments)
    assert status == 1
    assert err.startswith("pci: ") and message in err and "Traceback" not in err


@pytest.mark.parametrize("arguments", [("no-such-command",), ("train",), ("train", "authors-toy-yeast", "--epochs", "many")])
def test_wrong_usage_is_status_two(pci, arguments: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert pci(*arguments)[0] == 2


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.recipes, "names", interrupted)
    monkeypatch.setattr("sys.argv", ["pci", "recipes"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130 and "run the same command to go on" in capsys.readouterr().err

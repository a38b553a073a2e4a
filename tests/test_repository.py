"""The repository as a whole: files that must be there, pins in step, floors, clean notebooks, no machine paths."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pci_core
from pci_core import __version__, recipe

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "constraints.txt", "environment.yml",
    "Makefile", ".ci/run", "_config.yml", "_toc.yml", "book/intro.md", "book/references.bib", "book/_static/overview.svg",
)  # fmt: skip
FLOORS = {
    "errors": 0, "storage": 0, "cells": 0, "recipe": 0, "encoders": 0, "model": 0, "pretext": 0, "augment": 0,
    "preprocess": 0, "device": 0, "keras_h5": 0, "names": 0, "steps": 0,
    "folds": 0, "flags": 0, "logs": 0, "provenance": 0, "parallel": 0, "waiting": 0, "stopping": 0, "heartbeat": 0, "distributed": 0,
    "tables": 0, "unpacking": 0, "reading": 0, "hdf5": 0,
    "imaging": 1, "pairs": 1, "weights": 1, "feed": 1, "painting": 1, "step": 1, "pooled": 1, "chunks": 1, "memory": 1, "shards": 1,
    "sets": 1, "drawing": 1, "shape": 1, "pairing": 1,
    "parts": 1, "delivery": 1, "checkpoint": 1, "synchronised": 1, "networks": 1, "collapse": 1,
    "data": 2, "train": 2, "pretrained": 2, "imported": 2,
    "features": 3, "baselines": 3,
    "analysis": 4, "plots": 4,
    "run": 5, "info": 5, "init": 5, "comparison": 5, "check": 5, "export": 5, "lineage": 5, "used": 5, "varying": 5,
    "notebook": 5, "atlas": 5,
    "cli": 6, "cli_options": 6, "cli_weights": 6, "cli_data": 6, "cli_init": 6, "cli_hpa": 6, "cli_provenance": 6, "cli_check": 6,
    "book_examples": 6, "book": 6, "book_pages": 6, "settled": 6, "executing": 6, "results": 6, "docs": 6,
}  # fmt: skip
MODULES = {  # by which name a distribution is imported, where it is another
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
    "gprofiler-official": "gprofiler",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "jupyter-book": "jupyter_book",
    "cp-measure": "cp_measure",
}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|tmp/[a-z]\w+)/|[.]librar[y]/")
REGISTRY = re.compile(r"pypi\.org/simple|files\.pythonhosted|download\.pytorch\.org/whl|extra-index-url|--index-url", re.IGNORECASE)


def committed() -> list[Path]:
    """Return all files that git tracks; without git (a source archive), all that lies beside the known top level."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    skipped = {".venv", "runs", "_build", "__pycache__"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not skipped & set(p.relative_to(ROOT).parts)]


def texts() -> list[tuple[Path, str]]:
    out = []
    for path in committed():
        try:
            out.append((path.relative_to(ROOT), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue  # a binary file
    return out


def notebooks() -> list[Path]:
    return [p for p in committed() if p.suffix == ".ipynb"]


def project() -> dict[str, object]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def requirements(*extras: str) -> list[Requirement]:
    content = project()
    optional = content["optional-dependencies"]
    assert isinstance(optional, dict)
    lines = list(content["dependencies"]) if isinstance(content["dependencies"], list) else []
    return [Requirement(line) for line in lines + [line for extra in extras for line in optional[extra]]]


def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    out: dict[str, str] = {}
    for line in filter(None, lines):
        name, version = line.split("==")
        assert canonicalize_name(name) not in out, f"{name} is pinned twice"
        out[canonicalize_name(name)] = version
    return out


# --- files


@pytest.mark.parametrize("name", NEEDED)
def test_needed_file_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.parametrize("name", [".ci/run", "postBuild"])
def test_scripts_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_no_text_file_names_a_machine_or_a_registry() -> None:
    found = [f"{p}:{text.count(chr(10), 0, m.start()) + 1} {m[0]}" for p, text in texts() for m in MACHINE_PATH.finditer(text)]
    me = Path(__file__).relative_to(ROOT)
    found += [f"{p}: {m[0]}" for p, text in texts() if p != me for m in REGISTRY.finditer(text)]
    assert not found


def test_only_ci_knows_the_folder_beside_the_repository() -> None:
    me = Path(__file__).relative_to(ROOT)
    assert [str(p) for p, text in texts() if re.search(r"\.\./shared|/shared\b", text) and p != me] == [".ci/run"]


def test_no_python_file_is_longer_than_500_lines() -> None:
    assert not {str(p): n for p, text in texts() if p.suffix == ".py" and (n := text.count("\n")) > 500}


def test_readme_has_no_number_left_to_fill_in() -> None:
    assert "<<" not in (ROOT / "README.md").read_text()


# --- versions in step


def test_every_requirement_is_pinned_within_its_limits() -> None:
    known = pins()
    for requirement in requirements("book", "cluster", "test", "lint"):
        name = canonicalize_name(requirement.name)
        assert name in known, f"{requirement.name} has no line in constraints.txt"
        assert requirement.specifier.contains(known[name], prereleases=True), f"{requirement}: constraints.txt has {known[name]}"


def test_every_limit_says_why() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    limited = [line for line in lines if re.match(r'\s+"[\w-]+[^"]*(<|==|!=)', line)]
    assert limited and not [line for line in limited if "#" not in line]


def test_every_dependency_has_its_reason_and_is_used() -> None:
    """Each stands on a line of its own with a comment behind it; what nothing imports, a command runs."""
    lines = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if re.match(r'\s+"[A-Za-z_][\w-]*[<>=!~]|\w+ = \["', line)]
    listed: dict[str, list[str]] = {}
    for line in lines:
        for name in re.findall(r'"([A-Za-z_][\w-]*)[<>=!~]', line):
            listed.setdefault(canonicalize_name(name), []).append(line)
    known = {canonicalize_name(r.name) for r in requirements("book", "cluster", "cellpose", "test", "lint")}
    assert set(listed) == known | {"setuptools"}
    without = [line.strip() for lines in listed.values() for line in lines if not re.search(r'[\]"],?\s+# \S.{3,}', line)]
    assert [line for line in without if not line.startswith("requires = ")] == []
    run = {  # never imported: what runs it, and where that stands
        "tensorboard": "pci_core/checkpoint.py: torch.utils.tensorboard",
        "sphinx-book-theme": "_config.yml: sphinx_book_theme",
        "sphinx-mathjax-offline": "pci_core/book.py: sphinx-mathjax-offline",
        "ipykernel": "pci_core/executing.py: ipykernel_launcher",
        "jupyter-book": "pci_core/book.py: jupyter_book.cli.main",
        "cellpose": "pci_core/imaging/cellpose.py: import_module",
        "pytest-xdist": "Makefile: -n auto",
        "ruff": "Makefile: -m ruff",
        "mypy": "Makefile: -m mypy",
    }
    for name, place in run.items():
        path, _, word = place.partition(": ")
        text = (ROOT / path).read_text()
        assert word in text, f"{name}: {place}"
    imported = {name for path in [*package_files(), *(ROOT / "tests").rglob("*.py")] for name in top_level_imports(path)}
    assert known - set(run) - {n for n in known if MODULES.get(n, n) in imported} == set()


def test_environment_has_the_same_pins_as_constraints() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in content["dependencies"] if isinstance(d, str)]
    assert "python=3.11" in conda
    lines = next(d["pip"] for d in content["dependencies"] if isinstance(d, dict))
    listed = dict(line.split("==") for line in lines)
    known = pins()
    assert {n: v for n, v in listed.items() if known.get(canonicalize_name(n)) != v} == {}
    needed = {canonicalize_name(r.name) for r in requirements()} | {"papermill", "ipykernel"}
    assert {canonicalize_name(n) for n in listed} == needed


def test_nothing_unpinned_is_installed() -> None:
    """Walk from our requirements through the installed distributions: each must stand in constraints.txt."""
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        pytest.skip("this environment is not the .venv that make sets up from constraints.txt")
    known, environment = pins(), default_environment()
    if environment["python_version"] != "3.11" or environment["sys_platform"] != "linux":
        pytest.skip(
            f"constraints.txt is exact for Python 3.11 on Linux, this is {environment['python_version']} on {environment['sys_platform']}"
        )
    todo = [(canonicalize_name(r.name), frozenset(r.extras)) for r in requirements("book", "cluster", "test", "lint")]
    todo += [("setuptools", frozenset()), ("wheel", frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    wrong = []
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # torch's GPU build pins these itself
        seen.add((name, extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name}: not installed")
            continue
        version = distribution.version.split("+")[0]  # torch's CPU build calls itself 2.x+cpu
        if known.get(name) != version:
            wrong.append(f"{name}: installed {version}, pinned {known.get(name)}")
        for requirement in map(Requirement, distribution.requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    assert not wrong
    assert set(known) == {name for name, _ in seen}, "constraints.txt pins what nothing needs"


def test_what_the_package_imports_is_required_and_the_other_way_round() -> None:
    needed = {MODULES.get(r.name, r.name) for r in requirements()}
    optional = {MODULES.get(r.name, r.name) for r in requirements("book", "cluster")} - needed
    imported = {name for path in package_files() for name in top_level_imports(path)}
    allowed = needed | optional | {"pci_core"}
    assert not {name for name in imported if name not in allowed and name not in sys.stdlib_module_names}
    indirect = {"tensorboard"}  # torch.utils.tensorboard imports it
    assert needed - imported - indirect == set(), "required but never imported"


def top_level_imports(path: Path) -> set[str]:
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out.add(node.module.split(".")[0])
    return out


# --- floors


def package_files() -> list[Path]:
    return sorted((ROOT / "pci_core").rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "pci_core").with_suffix("").parts
    return parts[0]


def rooms_imported(path: Path) -> set[str]:
    """Return the modules or sub-packages of pci_core that a file imports, anywhere in it."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("pci_core.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "pci_core":
            out |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pci_core."):
            out.add(node.module.split(".")[1])
    return out


def test_every_module_has_a_floor() -> None:
    assert {room(p) for p in package_files()} - {"__init__"} <= set(FLOORS)


@pytest.mark.parametrize("path", package_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path) -> None:
    if room(path) == "__init__":
        return
    floor = FLOORS[room(path)]
    assert not {name: FLOORS.get(name) for name in rooms_imported(path) if FLOORS.get(name, 99) > floor}


def test_every_public_name_is_where_the_package_says() -> None:
    for name in pci_core.__all__:
        getattr(pci_core, name)  # loaded on first use: a module that moved would be missed by whoever asks first


def test_analysis_sees_no_model_and_no_image() -> None:
    forbidden = {"model", "imaging", "train", "weights", "data"}
    assert not {p.name: bad for p in package_files() if room(p) in ("analysis", "plots") and (bad := rooms_imported(p) & forbidden)}


# --- notebooks, book, citation


def test_notebooks_are_templates_without_outputs() -> None:
    for path in notebooks():
        content = json.loads(path.read_text())
        cells = content["cells"]
        assert not [i for i, c in enumerate(cells) if c.get("outputs") or c.get("execution_count")], (
            f"{path.name} is committed with outputs"
        )
        assert "papermill" not in content["metadata"] and not [c for c in cells if "papermill" in c["metadata"]], (
            f"{path.name} is an executed copy"
        )
        assert content["metadata"]["kernelspec"]["name"] == "python3", path.name
        tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1, f"{path.name} needs one cell tagged 'parameters'"
        body = ast.parse("".join(tagged[0]["source"])).body
        assert all(isinstance(n, ast.Assign) for n in body), f"{path.name}: the parameters cell holds assignments only"
        for node in body:
            assert isinstance(node, ast.Assign)
            ast.literal_eval(node.value)  # papermill reads literals only
        long = [i for i, c in enumerate(cells) if c["cell_type"] == "code" and "".join(c["source"]).count("\n") > 25]
        assert not long, f"{path.name}: code of cells {long} belongs into the package"


def test_every_notebook_checks_its_parameters_before_anything_else() -> None:
    for path in notebooks():
        code = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        call = re.search(r"notebook\.(begin\(.*?globals\(\)|check_parameters\(globals\(\)\))", code[2], re.DOTALL)
        assert call is not None, (
            f"{path.name}: papermill only warns of a misspelt parameter; call pci.notebook.begin in the cell behind them"
        )
        assert "pci.Run(" not in code[2][: call.start()], path.name


def test_every_notebook_can_install_itself_on_colab() -> None:
    from pci_core.notebook import COLAB_CELL

    assert len(notebooks()) >= 10
    for path in notebooks():
        cells = json.loads(path.read_text())["cells"]
        assert "".join(cells[1]["source"]) == COLAB_CELL, f"{path.name}: the second cell is not pci_core.notebook.COLAB_CELL"
        assert "remove-cell" in cells[1]["metadata"]["tags"], path.name


def test_the_address_is_the_same_everywhere() -> None:
    spec = importlib.util.spec_from_file_location("address", ROOT / "tools" / "address.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.old_address() == script.address(), "run: make address"
    own = re.compile(r"https://github\.com/OWNER/REPOSITORY|" + re.escape(script.address()))
    holders = {p.relative_to(ROOT) for p in script.holders()}
    me = Path(__file__).relative_to(ROOT)
    elsewhere = {p for p, text in texts() if own.search(text)} - holders - {Path("pyproject.toml"), Path("tools/address.py"), me}
    assert not elsewhere, "the address stands in files that tools/address.py does not know"


def test_pages_of_the_contents_are_there_and_open_with_takeaways() -> None:
    from pci_core.book import _pages, _read_toc

    for page in _pages(_read_toc(ROOT / "_toc.yml")):
        path = next((p for p in (ROOT / f"{page}.md", ROOT / f"{page}.ipynb") if p.is_file()), None)
        assert path is not None, f"{page} is in _toc.yml but not there"
        if path.suffix == ".ipynb":
            assert "".join(json.loads(path.read_text())["cells"][0]["source"]).startswith("# "), (
                f"{path.name} does not begin with its title"
            )
        else:
            assert re.match(r"# .+\n\n:::\{admonition\} Takeaways\n", path.read_text()), f"{path.name} does not open with its takeaways"


def test_every_recipe_is_described() -> None:
    text = (ROOT / "book" / "data.md").read_text()
    for name in recipe.names():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}`")), "")
        assert ("simulated" if recipe.load(name).simulated else "real") in row.split("|", 2)[-1], (
            f"book/data.md: no row says what {name} is"
        )


def test_recipe_of_own_images_is_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "book" / "own_images.md").read_text(), re.DOTALL)
    assert recipe.parse(tomllib.loads(blocks[0]), "own_images.md").source.kind == "table"


def test_recipe_of_another_pretext_is_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "book" / "beyond.md").read_text(), re.DOTALL)
    assert recipe.parse(tomllib.loads(block), "beyond.md").training.pretext == "contrast"


def test_citation_names_version_licence_and_paper() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert content["cff-version"] == "1.2.0" and content["message"] and content["title"] and content["authors"]
    assert content["type"] == "software" and content["license"] == "BSD-3-Clause" and content["version"] == __version__
    paper = content["preferred-citation"]
    assert paper["doi"] == "10.1371/journal.pcbi.1007348" and [a["family-names"] for a in paper["authors"]] == [
        "Lu",
        "Kraus",
        "Cooper",
        "Moses",
    ]


@pytest.mark.parametrize("name", ["report", "feature_sets", "scale"])
def test_measured_pages_are_what_the_raw_results_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as when it is run as a script
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), f"run: python benchmarks/{name}.py"

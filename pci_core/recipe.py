"""Recipe: all that is fixed per data set (channels, segmentation, crop, preprocessing, training).

A recipe is a TOML file; nothing that a machine decides (device, precision, workers, folders) is in
it. The embedded ones lie in ``pci_core/data/recipes``; a user's own file is given by its path.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pci_core import flags
from pci_core.cells import Channel
from pci_core.errors import RecipeError, unknown_name
from pci_core.reading import is_file, refusing
from pci_core.storage import content_hash, is_file_name

SOURCES = ("simulate", "authors", "duloc", "table", "folder", "deeploc", "h5sc", "subcell")
NEED_PATH = ("table", "folder", "deeploc", "h5sc", "subcell")  # sources that lie where the user put them
FORMATS = ("composite", "stack", "separate", "named")
PRETEXTS = ("inpainting", "contrast", "redundancy", "inpainting+contrast")
ENCODERS = ("paper", "residual", "attention")
LOSSES = ("mse", "weighted", "normalised")
AUGMENT = ("", "none", "standard", "strong")
TARGETS = ("random", "far")
WEIGHS = ("cells", "images")
SEGMENTERS = ("nuclei", "nuclei-split", "yeast", "yeast-brightfield", "yeast-ring", "labels", "cellpose")
LARGEST_CROP = 16_384  # px: no cell is as large
_LARGEST = 2**63 - 1  # beyond it no library counts
_AT_LEAST_0 = {
    "source": ("proteins", "seed"), "fields": ("um_per_px",), "segmentation": ("sigma", "min_area", "fill_holes", "diameter"),
    "preprocess": ("full",), "training": ("seed",),
}  # fmt: skip
_LATER: dict[str, bool] = {
    "later": True
}  # a key that came later: at its default it is no part of any hash, so that runs made before stay valid


def later(default: Any) -> Any:
    """Return a recipe key that came after the first runs were made: at its default it changes no hash."""
    return field(default=default, metadata=_LATER)


@dataclass(frozen=True)
class Source:
    """Where fields of view, or ready crops, come from.

    ``kind``: ``simulate`` (embedded simulator), ``authors`` (the paper's toy sets), ``duloc`` (cells of
    the Human Protein Atlas with known fractions; ``path``: a folder of ready tiles instead of the
    download), ``table`` (a user's own images, one row a field in the CSV ``path``, or in ``fields.csv`` of the
    folder ``path``), ``folder`` (fields of view in the folder ``path``, named as the source hands them out), or ready
    crops: ``deeploc`` (HDF5 files of labelled yeast cells in the folder ``path``), ``h5sc`` (scPortrait's single-cell
    file ``path``), ``subcell`` (SubCell's ``path_list.csv``). Paths are relative to the recipe file, those of embedded
    recipes to the folder where the command is run.
    ``layout``: for ``folder``, regular expressions of relative paths with named groups, see `pci_core.data.folder`;
    ``examples``: a path that each of them means; ``channels``: what a path says for each channel, in the recipe's order
    (``"gfp|ch1"``: either); ``fields_per_file``: how many fields lie in one file, each with the planes of ``fields.order``;
    ``names``: a CSV in that folder with what is known of each plate and well; ``note``: how the source hands its files
    out, in words. For ``h5sc`` and ``subcell``, ``channels`` are the file's names of the recipe's channels, in its order, and
    ``names`` the columns, with commas, whose values tell cells of one image (``"*"``: all cells are one image).
    The other keys speak to the simulator (`organism`, `proteins`, `images_per_protein`,
    `fields_per_image`, `modality`, `seed`) or to the toy sets (`subset`).
    """

    kind: str
    organism: str = "human"
    modality: str = ""
    proteins: int = 0
    images_per_protein: int = 1
    fields_per_image: int = 1
    seed: int = 0
    subset: str = ""
    path: str = ""
    layout: tuple[str, ...] = later(())
    examples: tuple[str, ...] = later(())
    channels: tuple[str, ...] = later(())
    fields_per_file: int = later(1)
    names: str = later("")
    note: str = later("")


@dataclass(frozen=True)
class Fields:
    """How a field of view is read.

    ``format``: ``composite`` (an RGB JPEG/PNG; ``order`` names the channel in red, green, blue),
    ``stack`` (a multi-channel TIFF; ``order`` names its planes), ``separate`` (one file a channel,
    columns ``path_<channel>`` of the field table) or ``named`` (one OME-TIFF or OME-Zarr that names its channels
    itself; ``file_channels``: its names for the recipe's channels, in the recipe's order; empty = the same names).
    ``um_per_px``: pixel size in µm, 0 = not known. ``downscale``: factor by which a field is reduced before
    segmentation (HPA at full size: 4).
    """

    format: str = "composite"
    order: tuple[str, ...] = ()
    um_per_px: float = 0.0
    downscale: int = 1
    file_channels: tuple[str, ...] = later(())


@dataclass(frozen=True)
class Segmentation:
    """How cell centres are found, in px of the (downscaled) field.

    ``method``: ``nuclei`` (the authors': Otsu on the smoothed channel), ``nuclei-split`` (for dense or hazy
    fields: robust threshold, touching nuclei cut apart), ``yeast`` (whole cells on a cytosolic channel,
    touching ones cut apart), ``yeast-brightfield``, ``yeast-ring`` (a nuclear-envelope channel), ``labels`` (a
    label image made by another tool, column ``labels``) or ``cellpose`` (an extra; ``model``: one of its models or a file,
    ``diameter`` of a usual cell in px, 0 = Cellpose's own estimate).
    """

    method: str = "nuclei"
    channel: str = ""
    sigma: float = 0.0
    min_area: int = 0
    fill_holes: int = 0
    clear_border: bool = True
    model: str = later("")
    diameter: float = later(0.0)


@dataclass(frozen=True)
class Crop:
    """Which cells are kept and how they are cut out.

    ``size``: side of the square cut around a centre, px of the (downscaled) field. ``resize``: side
    of the stored crop, px. ``min_fraction``/``max_fraction``: limits of a cell's area as a share of
    the crop. ``min_cells``: images with fewer cells are left out. ``flagged``: ``keep`` or ``leave out`` cells whose
    crop is constant, empty or saturated, see `pci_core.flags`.
    """

    size: int = 64
    resize: int = 64
    min_fraction: float = 0.0
    max_fraction: float = 1.0
    min_cells: int = 2
    flagged: str = later(flags.KEEP)

    @property
    def rule(self) -> flags.Rule:
        """What becomes of flagged cells."""
        return flags.Rule(self.flagged == flags.LEAVE_OUT, self.min_cells)


@dataclass(frozen=True)
class Preprocess:
    """How raw crops become [0, 1] on the device.

    ``protein`` and ``structural``: ``minmax`` (each channel of each crop) or ``clip`` (from
    [``floor``, 1] of the full intensity range to [0, 1], clipped below). ``full``: the intensity
    that counts as 1 for ``clip``; 0 = the largest value of the stored type (1.0 for floats).
    """

    protein: str = "minmax"
    structural: str = "minmax"
    floor: float = 0.05
    full: float = 0.0


@dataclass(frozen=True)
class Training:
    """What fixes a trained model; see the paper's Methods and the authors' code.

    ``pretrained``: weights that feature sets use by default: a name in ``pci_core/pretrained``, a network of the
    paper's authors (``authors-yeast`` and the like), or a ``.safetensors`` or Keras ``.h5`` (relative to the recipe
    file); empty, or no weights of that kind (PCI, autoencoder) there = train on the recipe's own cells. ``start``:
    the same, for the source cell encoder that a training starts from; empty = random.

    Beyond the paper, whose choices are the defaults: ``pretext``: what the network learns from a pair, see `pci_core.pretext`.
    ``encoder``: ``paper``, ``residual`` (of the same cost, with skip connections) or ``attention`` (that, with channel attention),
    see `pci_core.encoders`. ``loss`` of inpainting: ``mse``, ``weighted`` (a pixel counts by how bright the protein is) or
    ``normalised`` (each protein channel to mean 0 and deviation 1). ``augment``: random changes of what the encoder sees, ``none``,
    ``standard`` or ``strong``, see `pci_core.augment`; empty = none for inpainting, standard for the others. ``pair_by``: column of
    the cell table whose cells are paired; ``protein`` pairs across cell lines and antibodies. ``targets``: ``random``, or ``far``,
    which of several random ones takes the cell that differs most in shape. ``weigh``: an epoch takes every cell (``cells``) or each
    image (``images``) equally often as a source. ``leave_out``: a column of the cell table; images with any value in it other than an
    empty one, 0 or false are not trained on. ``leave_out_varying``: share of the images, those whose cells differ most to an earlier
    network, that are not.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-4
    beta1: float = 0.5
    width: float = 1.0
    holdout: float = 0.1
    seed: int = 0
    pretrained: str = ""
    start: str = ""
    pretext: str = later("inpainting")
    encoder: str = later("paper")
    loss: str = later("mse")
    augment: str = later("")
    pair_by: str = later("image")
    targets: str = later("random")
    weigh: str = later("cells")
    leave_out: str = later("")
    leave_out_varying: float = later(0.0)

    @property
    def paints(self) -> bool:
        """Whether the network paints the protein, for which it needs a structural channel."""
        return self.pretext.startswith("inpainting")


@dataclass(frozen=True)
class Recipe:
    """A validated recipe.

    Attributes
    ----------
    name, title, description : str
    simulated : bool
        Whether pages and figures must say that the images are simulated.
    organism : str
        For gene-set analysis, as g:Profiler names it.
    label : str
        Column of the cell table that benchmarks predict by default.
    group : str
        Column whose values must not stand on both sides of a split; empty = the image, or the field
        where a class is a single image.
    layer : str
        Default layer of the analyses.
    licence, credit : str
        Of the images: what may be done with them, and the line that goes with any picture of them.
    folder : Path or None
        Where the recipe file lies; relative paths in it start there.
    """

    name: str
    title: str
    channels: tuple[Channel, ...]
    source: Source
    description: str = ""
    simulated: bool = False
    organism: str = ""
    label: str = "location"
    group: str = ""
    layer: str = "conv4"
    licence: str = ""
    credit: str = ""
    fields: Fields = field(default_factory=Fields)
    segmentation: Segmentation = field(default_factory=Segmentation)
    crop: Crop = field(default_factory=Crop)
    preprocess: Preprocess = field(default_factory=Preprocess)
    training: Training = field(default_factory=Training)
    folder: Path | None = None

    @property
    def source_path(self) -> Path:
        """Where the source's files lie: ``source.path``, started from the recipe file's folder."""
        return (self.folder or Path()) / self.source.path

    def section_hash(self, *names: str) -> str:
        """Return a hash of the named parts, e.g. ``section_hash("channels", "crop")``."""
        return content_hash({n: plain(getattr(self, n)) for n in names})

    def placeless(self) -> Recipe:
        """Return a copy whose files are named without the folders of this machine, for hashes that are the same everywhere."""
        path, training = self.source.path, self.training
        source = dataclasses.replace(self.source, path=_placeless(path))
        trained = dataclasses.replace(training, pretrained=_placeless(training.pretrained), start=_placeless(training.start))
        return dataclasses.replace(self, source=source, training=trained, folder=None)

    def identity(self) -> str:
        """Return a hash of all that the recipe fixes, wherever its files lie."""
        here = self.placeless()
        return here.section_hash(*(f.name for f in dataclasses.fields(self) if f.name != "folder"))

    def replace(self, **sections: dict[str, Any]) -> Recipe:
        """Return a copy with some keys of some sections changed, e.g. ``replace(training={"epochs": 3})``."""
        known = {f.name for f in dataclasses.fields(self)}
        changed = {}
        for section, values in sections.items():
            if section not in known:
                raise unknown_name("recipe section", section, known)
            changed[section] = _build(type(getattr(self, section)), {**plain(getattr(self, section)), **values}, f"{self.name} [{section}]")
        return _check(dataclasses.replace(self, **changed), self.name)


def read_outside(recipe: Recipe) -> list[Path]:
    """Return the files that a recipe of a user's names outside of its own folder, links followed: `pci info` shows them.

    A recipe reads what its user may read, as images, tables and weights alone, since images mostly lie elsewhere; what it makes
    us write stays in the folder of runs, whatever it says.
    """
    if recipe.folder is None:
        return []
    home = recipe.folder.resolve()
    weights = [w for w in (recipe.training.pretrained, recipe.training.start) if "." in Path(w).suffix or Path(w).name != w]
    named = [p for p in (recipe.source.path, *weights) if p]
    found = [(home / p).resolve() for p in named]
    return [p for p in dict.fromkeys(found) if home not in (p, *p.parents)]


def _placeless(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path


def plain(value: Any) -> Any:
    """Return a recipe's part as dicts, lists and plain values; later keys at their default are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        keys = {
            f.name: getattr(value, f.name)
            for f in dataclasses.fields(value)
            if not f.metadata.get("later") or getattr(value, f.name) != f.default
        }
        return {k: plain(v) for k, v in keys.items()}
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def names() -> list[str]:
    """Return the names of the embedded recipes."""
    return sorted(p.name.removesuffix(".toml") for p in _embedded().iterdir() if p.name.endswith(".toml"))


def _embedded() -> Any:
    return resources.files("pci_core") / "data" / "recipes"


def load(recipe: str | os.PathLike[str]) -> Recipe:
    """Read a recipe by the name of an embedded one or the path of a TOML file.

    Raises
    ------
    UnknownNameError
        Neither an embedded recipe nor a file; the nearest names are listed.
    RecipeError
        The file cannot be parsed, has an unknown key or an impossible value.
    """
    text_name = os.fspath(recipe)
    if text_name in names():
        raw, where, folder = (_embedded() / f"{text_name}.toml").read_bytes(), f"{text_name}.toml", None
    elif Path(text_name).suffix == ".toml":
        path = Path(text_name)
        if not is_file(path):
            raise RecipeError(f"recipe file {path} is not there. Embedded recipes: {', '.join(names())}.")
        raw, where, folder = path.read_bytes(), str(path), path.resolve().parent
    else:
        raise unknown_name("recipe", text_name, names())
    with refusing(where, RecipeError, "is no valid TOML", "Correct it; 'pci info' says what is wrong next."):
        content = tomllib.loads(raw.decode("utf-8"))
    return parse(content, where, folder)


def parse(content: dict[str, Any], where: str, folder: Path | None = None) -> Recipe:
    """Build and check a recipe from the content of a TOML file."""
    content = dict(content)
    channels = content.pop("channels", None)
    if not isinstance(channels, list) or not channels:
        raise RecipeError(f"{where}: needs [[channels]], the protein first, e.g. [[channels]] name = 'green' role = 'protein'.")
    built = {"channels": tuple(_build(Channel, c, f"{where} [[channels]]") for c in channels)}
    return _check(_build(Recipe, {**content, **built, "folder": folder}, where), where)


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected a table of keys, found {values!r}.")
    hints = typing.get_type_hints(kind)
    out = {}
    for key, value in values.items():
        if key not in hints:
            raise RecipeError(f"{where}: {unknown_name('key', key, hints)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and not isinstance(value, typing.cast(type, hint)):
            value = _build(hint, value, f"{where} [{key}]")
        elif hint in (str, int, float, bool):
            right = isinstance(value, (int, float)) if hint is float else isinstance(value, hint)
            if not right or (isinstance(value, bool) and hint is not bool):
                raise RecipeError(f"{where}: '{key}' must be {hint.__name__}, found {_short(value)}.")
            if isinstance(value, int) and abs(value) > _LARGEST or isinstance(value, float) and not math.isfinite(value):
                raise RecipeError(f"{where}: '{key}' must be a finite number, found {_short(value)}.")
            if isinstance(value, str) and "\0" in value:
                raise RecipeError(f"{where}: '{key}' has a character of number 0 in it, which no text here has: {_short(value)}.")
            value = hint(value)
        elif typing.get_origin(hint) is tuple and not (isinstance(value, tuple) and all(map(dataclasses.is_dataclass, value))):
            if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and "\0" not in v for v in value):
                raise RecipeError(f"{where}: '{key}' must be a list of texts, found {_short(value)}.")
            value = tuple(value)
        out[key] = value
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    missing = [n for n in needed if n not in out]
    if missing:
        raise RecipeError(f"{where}: missing {', '.join(missing)}.")
    return kind(**out)


def _short(value: Any) -> str:
    text = f"a number of {value.bit_length() // 3} digits" if isinstance(value, int) and abs(value) > _LARGEST else repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _check(recipe: Recipe, where: str) -> Recipe:
    def need(ok: bool, what: str) -> None:
        if not ok:
            raise RecipeError(f"{where}: {what}")

    def one_of(value: str, known: tuple[str, ...], key: str) -> None:
        if value not in known:
            raise RecipeError(f"{where}: {unknown_name(key, value, known)}")

    need(
        is_file_name(recipe.name),
        f"name = {ascii(recipe.name)[:120]} cannot be a folder's name, and what the recipe makes is put into runs/<name>. Take up to 100 "
        "letters and digits, without / \\ : or a dot at the start or end.",
    )
    for key in ("title", "description", "licence", "credit", "label", "organism"):
        text = getattr(recipe, key)
        need(
            text.replace("\n", "").replace("\t", "").isprintable(), f"{key} = {ascii(text)[:120]} holds control characters. Take them out."
        )
    roles = [c.role for c in recipe.channels]
    need(not set(roles) - {"protein", "structural"}, f"channel roles are 'protein' or 'structural', found {roles}.")
    one_of(recipe.training.pretext, PRETEXTS, "training pretext")
    need(roles == sorted(roles) and "protein" in roles, f"needs protein channels first, found {roles}.")
    need(
        "structural" in roles or not recipe.training.paints,
        f"needs protein channels first and at least one structural channel, found {roles}: pretext = '{recipe.training.pretext}' paints "
        "the protein into a second cell that only the structural channels show. With protein channels alone, take [training] pretext = "
        "'contrast' or 'redundancy'.",
    )
    need(len({c.name for c in recipe.channels}) == len(roles), "channel names must differ.")
    one_of(recipe.source.kind, SOURCES, "source kind")
    one_of(recipe.fields.format, FORMATS, "field format")
    need(
        bool(recipe.source.path) or recipe.source.kind not in NEED_PATH,
        f"[source] kind = '{recipe.source.kind}' needs 'path': where the files lie.",
    )
    names = recipe.fields.file_channels
    need(
        not names or (recipe.fields.format == "named" and len(names) == len(roles) == len(set(names))),
        f"[fields] file_channels belongs to format = 'named' and names each of the {len(roles)} channels once, found {list(names)}.",
    )
    one_of(recipe.segmentation.method, SEGMENTERS, "segmentation method")
    for key in ("protein", "structural"):
        one_of(getattr(recipe.preprocess, key), ("minmax", "clip"), f"preprocess {key}")
    crop, training = recipe.crop, recipe.training
    need(crop.resize >= 4 and crop.resize % 4 == 0, f"crop resize must be a multiple of 4 px (two 2x2 poolings), found {crop.resize}.")
    need(crop.size >= 4, f"crop size must be at least 4 px, found {crop.size}.")
    need(0 <= crop.min_fraction < crop.max_fraction <= 1, "crop needs 0 <= min_fraction < max_fraction <= 1.")
    one_of(crop.flagged, flags.CHOICES, "crop flagged")
    need(crop.min_cells >= 1, "crop min_cells must be at least 1.")
    need(recipe.fields.downscale >= 1, "fields downscale must be at least 1.")
    need(training.epochs >= 1 and training.batch_size >= 1, "training needs epochs >= 1 and batch_size >= 1.")
    need(training.learning_rate > 0 and 0 <= training.beta1 < 1, "training needs learning_rate > 0 and 0 <= beta1 < 1.")
    need(0.03 <= training.width <= 4, f"training width must lie in [0.03, 4], found {training.width}.")
    for key, known in (("encoder", ENCODERS), ("loss", LOSSES), ("augment", AUGMENT), ("targets", TARGETS), ("weigh", WEIGHS)):
        one_of(getattr(training, key), known, f"training {key}")
    need(training.loss == "mse" or training.paints, f"training loss = '{training.loss}' is one of inpainting, not of '{training.pretext}'.")
    need(training.pair_by != "", "training pair_by names a column of the cell table, e.g. 'image' or 'protein'.")
    need(
        training.targets == "random" or "structural" in roles,
        "training targets = 'far' compares shapes in the structural channels, and there is none. Take 'random'.",
    )
    need(0 <= training.leave_out_varying < 1, f"training leave_out_varying must lie in [0, 1), found {training.leave_out_varying}.")
    need(0 <= training.holdout < 1, f"training holdout must lie in [0, 1), found {training.holdout}.")
    need(0 <= recipe.preprocess.floor < 1, "preprocess floor must lie in [0, 1).")
    need(max(crop.size, crop.resize) <= LARGEST_CROP, f"crop size and resize must not be above {LARGEST_CROP:,} px.")
    for section, keys in _AT_LEAST_0.items():
        for key in keys:
            found = getattr(getattr(recipe, section), key)
            need(found >= 0, f"{section} {key} must not be below 0, found {found}.")
    source = recipe.source
    need(
        min(source.images_per_protein, source.fields_per_image, source.fields_per_file) >= 1,
        "source images_per_protein, fields_per_image and fields_per_file must be at least 1.",
    )
    return recipe

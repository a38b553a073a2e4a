"""Whether a trained network fits the cells at hand: their channels, their rescaling, their scale."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pci_core.cells import CellDataset, Channel
from pci_core.encoders import Encoder
from pci_core.errors import CheckpointError
from pci_core.recipe import Preprocess, Recipe

_SCALE = 1.25  # cells that look larger or smaller by more than this are worth a word


def check_channels(cells: CellDataset | Recipe, encoder: Encoder, trained: Sequence[str | Mapping[str, Any]] | None, name: str) -> None:
    """Refuse cells of other channels than those the network was trained on.

    Parameters
    ----------
    cells : CellDataset or Recipe
        Whose channels are looked at.
    encoder : Encoder
    trained : sequence of str or mapping, optional
        Names of the channels in order, or the entries of a card: ``name``, ``role``, and in ``also`` other names of the same
        marker. None: not trained.
    name : str
        Of the model, for the message.

    Raises
    ------
    CheckpointError
        Number, order, roles or names (but for upper and lower case) of the channels differ.
    """
    expected = encoder.channels
    found = [c.name for c in cells.channels]
    entries = [{"name": t} if isinstance(t, str) else t for t in trained or ()]
    fits = len(found) == expected and (
        trained is None or (len(entries) == expected and all(_is_channel(c, e) for c, e in zip(cells.channels, entries, strict=True)))
    )
    if not fits:
        names = [e["name"] for e in entries]
        want = f"{names} ({expected} channels)" if trained else f"{expected} channels"
        same = "If these are the same markers in the same order, call them so in the recipe, or name the channels of a Keras file with "
        raise CheckpointError(
            f"model '{name}' was made for {want}, but the cells have {found}. Use weights of the same channels or train anew."
            + (f" {same}'pci weights import FILE --channels {','.join(found)}'." if trained and len(found) == expected else "")
        )


def _is_channel(channel: Channel, entry: Mapping[str, Any]) -> bool:
    known = [entry["name"], *entry.get("also", ())]
    return channel.role == entry.get("role", channel.role) and channel.name.casefold() in [n.casefold() for n in known]


def channels_of(card: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the channels of a card: ``name``, ``role`` and, of imported networks, ``also``.

    Raises
    ------
    CheckpointError
        The card names none.
    """
    channels = card.get("channels")
    if not isinstance(channels, list) or not all(isinstance(c, Mapping) and isinstance(c.get("name"), str) for c in channels):
        raise CheckpointError(f"{name}: its card does not name the channels. Use weights that this package wrote.")
    return channels


def check_preprocess(path: str | os.PathLike[str], card: Mapping[str, Any], preprocess: Preprocess) -> None:
    """Refuse cells that are rescaled in another way than those of the training.

    Raises
    ------
    CheckpointError
        Any key that the card names differs.
    """
    trained = card.get("preprocess")
    if not isinstance(trained, Mapping):
        raise CheckpointError(f"{path}: its card does not say how the cells were rescaled. Use weights that this package wrote.")
    differ = {k: (v, getattr(preprocess, k, None)) for k, v in trained.items() if getattr(preprocess, k, None) != v}
    if differ:
        told = "; ".join(f"{k}: {there!r} there, {here!r} in the recipe" for k, (there, here) in differ.items())
        raise CheckpointError(
            f"{path} was trained on cells that were rescaled in another way ({told}). Give the recipe the same [preprocess], "
            "or take 'pretrained' out of its [training] and train on its own cells."
        )


def scale_note(card: Mapping[str, Any], name: str, um_per_px: float | None, side: int) -> str:
    """Return a line where cells look larger or smaller than those of the training, or crops have another side; else nothing.

    Features are spatial maxima, so that any side works; cells at another scale show the network other shapes than it knows.

    Parameters
    ----------
    card : mapping
        ``um_per_px`` and ``crop`` of the training, where they are known.
    name : str
        Of the weights.
    um_per_px : float or None
        Pixel size of the crops at hand, µm.
    side : int
        Their side, px.
    """
    there = card.get("um_per_px")
    if there and um_per_px and max(there / um_per_px, um_per_px / there) > _SCALE:
        return (
            f"{name} was trained on crops of {there:.3g} µm/px, these have {um_per_px:.3g} µm/px: to it, cells look "
            f"{there / um_per_px:.2g} times as large. Choose [crop] size and resize so that the two agree."
        )
    if card.get("crop") and card["crop"] != [side, side]:
        return (
            f"{name} was trained on crops of {card['crop'][0]} px, these have {side} px. That is allowed; "
            "see that a cell fills about as much of them."
        )
    return ""

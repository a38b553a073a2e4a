"""Crops to the device: held and streamed give the same, in the order asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pci_core.cells import CROPS, CellDataset
from pci_core.errors import DatasetError, UnknownNameError
from pci_core.feed import Feed

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("mode", ["resident", "streamed"])
def test_rows_come_as_asked(make_cells: Callable[..., CellDataset], mode: str, dtype: str) -> None:
    dataset = make_cells(dtype=dtype)
    rows = [torch.tensor([5, 0, 23]), torch.tensor([1]), torch.tensor([2, 2])]
    batches = list(Feed(dataset, CPU, mode).batches(rows))
    for index, crops in zip(rows, batches, strict=True):
        np.testing.assert_array_equal(crops.numpy(), dataset.crops[index.numpy()])


def test_the_cpu_streams_by_itself(make_cells: Callable[..., CellDataset]) -> None:
    assert Feed(make_cells(), CPU).mode == "streamed"
    with pytest.raises(UnknownNameError, match="'stream'. Did you mean streamed"):
        Feed(make_cells(), CPU, "stream")


def test_a_file_that_shrinks_while_it_is_read(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()
    feed = Feed(dataset, CPU, "streamed")
    with open(dataset.folder / CROPS, "rb+") as handle:
        handle.truncate(1000)
    with pytest.raises(DatasetError, match="ends early at cell 23"):
        list(feed.batches([torch.tensor([23])]))

"""Measurements that came with the cells, as the paper had CellProfiler's features of Chong et al. with their labelled cells.

They were made by others on whole fields of view with their own segmentation. Coordinates, identifiers and counters were taken
out by their names when the cells were made (``info_columns_that_are_no_features`` in ``dataset.json`` lists them). Gaps are
treated as in `pci_core.baselines.cellprofiler`.
"""

from __future__ import annotations

from pci_core.baselines import Measured
from pci_core.baselines.cellprofiler import fill
from pci_core.cells import CellDataset
from pci_core.data.measured import read_provided


def provided(dataset: CellDataset) -> Measured:
    """Give the measurements that came with the cells.

    Parameters
    ----------
    dataset : CellDataset
        From a source that hands measurements out, such as the recipe ``chong``.

    Returns
    -------
    Measured
        Under the source's own names; ``facts`` name the dropped columns and count filled values.

    Raises
    ------
    DatasetError
        Nothing came with these cells, the file was changed, or no column is finite in enough cells.
    """
    table = read_provided(dataset)
    values, names, left = fill(table.to_numpy("float32"), [str(c) for c in table], str(dataset.folder))
    facts = {
        "model": "provided",
        "made_by": "the source of the cells",
        "columns_that_are_no_features": ", ".join(dataset.info.get("left_out", {}).get("info_columns_that_are_no_features", [])) or "none",
        **left,
    }
    return Measured(values, names, facts)

"""What processes that are forked for tests have at hand; imported once, in the process that forks them (see `forked`)."""

import gc

import pyarrow.dataset  # with parquet files
import torch._dynamo  # three seconds, and any optimizer imports it
import torch.utils.tensorboard

import pci_core.cli
import pci_core.run
import pci_core.train

gc.collect()
gc.freeze()  # or each child would look through all of it after every step, and copy it by that

__all__ = ["pci_core", "pyarrow", "torch"]

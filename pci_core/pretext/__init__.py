"""What a network learns from a pair of cells of one image, beside the paper's inpainting (`pci_core.model`).

Each is a network of its own with ``loss(source, target, group, views)``, chosen by ``pretext`` in [training] of a recipe. All take the same
pairs and leave the same thing: a source cell encoder.
"""

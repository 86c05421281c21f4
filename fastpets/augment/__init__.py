"""Random transforms of images, composed: one matrix for an image's geometry and one lookup table for its tones.

In reading order:

    preprocessing.py      a model's input, with or without augmentation: size, normalisation, dtype
    policy.py             which random transforms are applied to training images, how strong and how often
    random_parameters.py  draws an image's random parameters from (seed, epoch, item id)
    geometry.py           the matrices, and how densely an image is sampled
    lookup_tables.py      the tone adjustments
    transforms.py         composes matrices and lookup tables; explains coordinates and frames

All of it is written for one image. `transforms` loops over a batch, compiled by numba (`fastpets.utils.compiled`), so
that threads compute the transforms of their images at the same time. Nothing here touches pixels, imports torch, or
knows datasets and files: `fastpets.kernels` applies the result.
"""

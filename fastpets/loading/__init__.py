"""Loads the images of a dataset as batches on a device.

Read `reference` first, which defines what a Loader delivers. Then, in the order of an epoch: `loader` (the public
class), `sampler` (which items, in which order), `planning` (what is done to each), `engine` (the stages and how far
each works ahead), `reading`, `decoding`, `warping` (the stages). They use `bad_files`, `cache`, `buffers`, `pool`,
`device` and `batch`. `display` turns batches into images to look at.
"""

"""Loads the images of a dataset as batches on a device.

Read `reference` first, which defines what a Loader delivers. Then, in the order of an epoch: `loader` (the public
class), `sampler` (which items, in which order), `planning` (what is done to each), `engine` (the interface from there
to tensors), `cpu_engine` and `decoding` (on a CPU), `dali_engine`, `dali_reading`, `dali_decoding` and `warping` (on a
GPU). They use `bad_files`, `cache`, `buffers`, `pool`, `stream_order`, `device` and `batch`. `loaders` makes a Loader
for training and one for validation, and `display` turns batches into images to look at.
"""

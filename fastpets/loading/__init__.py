"""From a data set to batches on the device.

Read `reference` first, the whole loader in sixty lines. Then, in the order of an epoch: `loader` (the public class),
`sampler` (which items, in which order), `planning` (what is done to each), `engine` (the stages and how far each works
ahead), `reading`, `decoding`, `warping` (the stages). `bad_files`, `cache`, `buffers`, `pool` and `batch` are what they
use, `display` shows images.
"""

"""What is loaded: images, their labels, and what their headers say. It knows neither torch nor augmentation.

Read `dataset` first (`ImageDataset`, what everything else takes), then `sources` (folders, tables, shards and lists
become an ImageDataset), `headers` (which decoder, which size; cached), `usable` (the images whose headers are good) and
`splits` (training and validation).
`path_table` and `storage` hold and read the paths; `pets` and `sample` are two data sets to start with.
"""

"""Data sets: the paths, labels and headers of images.

In reading order:

    dataset.py     ImageDataset: paths, labels and classes
    sources.py     ImageDatasets from folders, tables, tar shards, lists, and torchvision data sets
    tables.py      reads CSV files with the columns file, label and split
    headers.py     the decoder and the size of each image; cached on disk
    splits.py      training, validation and test images
    storage.py     lists and reads local files, remote files and members of shards
    path_table.py  stores millions of paths
    image.py       decodes an image with Pillow
    jpeg.py        finds damaged JPEGs
    pets.py        the Oxford-IIIT Pet images, downloaded
    sample.py      a data set of drawn shapes
"""

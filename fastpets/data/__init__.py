"""Data sets: the paths, labels and headers of images.

In reading order:

    dataset.py     ImageDataset: paths, labels and classes
    sources.py     ImageDatasets from folders, lists, and the kinds of source below
    labels.py      labels from folders, file names and numbers
    tables.py      CSV files with the columns file, label and split; their titles are in columns.py
    shards.py      tar shards
    parquet.py     Parquet files, which are unpacked; arrow_files.py reads and writes small ones
    hf_datasets.py, other_datasets.py  data sets of Hugging Face, torchvision and timm
    headers.py     the decoder and the size of each image; cached on disk
    splits.py      training, validation and test images; random_splits.py divides at random
    storage.py     lists and reads local files, remote files and members of shards
    path_table.py  stores millions of paths
    image.py       decodes an image with Pillow
    network.py     whether a server can be reached
    jpeg.py        finds damaged JPEGs
    pets.py        the Oxford-IIIT Pet images, downloaded
    sample.py      a data set of drawn shapes
"""

"""What is done to each image: one matrix for its geometry, one lookup table for its tone.

Read `policy` (which changes may happen), `preprocessing` (what the model sees), `transforms` (frames, random parameters
and their composition), then `geometry` and `lookup_tables`, which it is composed of.
"""

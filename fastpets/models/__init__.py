"""Image classifiers: a pretrained backbone of torchvision or timm under a new head.

In reading order: `classifier` has the model itself, `create_model` and the layer groups; `backbones` builds a backbone
and loads its pretrained weights; `weights` writes and reads a whole model as a safetensors file. `architectures` lists
the names that can be built.
"""

"""Image classifiers: a pretrained backbone of torchvision or timm under a new head.

In reading order: `classifier` has the model itself, `create_model` and the layer groups; `backbones` builds what comes
before the head and loads its pretrained weights; `weights` stores a whole model as a safetensors file.
"""

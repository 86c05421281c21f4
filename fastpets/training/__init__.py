"""Training a classifier: fastai's phases, rates and optimizer in PyTorch's terms.

In reading order: `learner` is the training loop, which is handed two loaders and a model. `options` and `phases` say
how it trains and for how long; `schedule` makes learning rates of them, and `lr_finder` suggests one. `train_step` does
one step, with `parameter_groups` (the optimizer and freezing) and `mixing`. `recorder`, `history`, `metrics` and
`input_timer` measure, and `plots` draws. `checkpoints`, `random_state`, `interruption`, `out_of_memory` and
`distributed` are for long runs; `tta` is test-time augmentation.
"""

"""Trains classifiers in PyTorch, with fastai's phases, learning rates and optimizer.

In reading order: `learner` contains the training loop over two loaders and a model. `options` and `phases` define how
and for how long it trains; `schedule` computes the learning rates, and `lr_finder` suggests one. `train_step` takes a
step, with `parameter_groups` (the optimizer and freezing), `losses` and `mixing`. `checks` refuses models and loaders
that do not fit. `recorder`, `history`, `metrics` and `input_timer` record results and times, and `plots` plots them.
`checkpoints`, `random_state`, `interruption`, `out_of_memory` and `distributed` are for long runs; `tta` is test-time
augmentation.
"""

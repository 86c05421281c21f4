"""Training runs: from flags to a learner, and from a run folder back to a model.

In reading order: `config` has all settings of a run, which are the flags of `fastpets train`, and `recipes` named sets
of them; `build` makes data sets, loaders, a model and a learner from them. `files` has the names of a run's files and
reads them, `folder` writes them, and `saving` does so after each epoch; `images` the list of its images, and
`predictor` saves and loads the trained model, which predicts images. `resuming` says how a run continues. `folds`
cross-validates, and `predictions` is the table of what its models predict. `trackers` logs to TensorBoard, Weights &
Biases and MLflow, and `hints` suggests what to change in the next run.
"""

"""A user's script for type checkers, which is never run.

`# reveals X` expects X in the type that the line reveals, `# error X` an error that mentions X.
"""

from pathlib import Path

import torch
from typing_extensions import reveal_type

import fastpets

train, valid = fastpets.loaders("images/", size=224, batch_size=64)
reveal_type(train)  # reveals Loader
reveal_type(train.preprocessing)  # reveals Preprocessing
for batch in train:
    reveal_type(batch)  # reveals Batch
    images, labels = batch
    reveal_type(images)  # reveals Tensor
    reveal_type(batch.labels)  # reveals Tensor

learner = fastpets.Learner(train, valid, "resnet18", fastpets.TrainingOptions(seed=1))
reveal_type(learner)  # reveals Learner
reveal_type(learner.options)  # reveals TrainingOptions
learner.fine_tune(2)

run = fastpets.load(Path("runs/pets"), device=torch.device("cpu"))
reveal_type(run)  # reveals Predictor
reveal_type(run.loader("images/"))  # reveals Loader
reveal_type(fastpets.create_model("resnet18", 2))  # reveals Classifier
reveal_type(fastpets.__version__)  # reveals str

fastpets.loaders("images/", bath_size=64)  # error bath_size
fastpets.Loader("images/", bath_size=64)  # error bath_size
fastpets.Learner(train, valid, "resnet18", option=None)  # error option
fastpets.TrainingOptions(sead=1)  # error sead
fastpets.create_model("resnet18", 2, sead=1)  # error sead
fastpets.load_runs("runs/pets")  # error load_runs

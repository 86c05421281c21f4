"""What a fastai Learner asks of its data loaders, under fastai's names."""

from __future__ import annotations

from collections import UserList
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fastpets.loading.batch import Batch
    from fastpets.loading.loader import Loader


class Vocab(UserList[str]):
    """The names of the labels. It is no list or tuple, which for fastai are the names of several kinds of labels."""

    @property
    def o2i(self) -> dict[str, int]:
        """The label of each name."""
        return {name: label for label, name in enumerate(self)}


class FastaiNames:
    """Members of a Loader for fastai's `get_preds`, `summary` and `ClassificationInterpretation`."""

    n_inp = 1  # tensors of a batch that the model is given

    @property
    def vocab(self) -> Vocab:
        """The names of the labels, as `classes`."""
        return Vocab(cast("Loader", self).classes)

    def one_batch(self) -> Batch:
        """The first batch of the next loop, which still delivers it, as `peek`."""
        return cast("Loader", self).peek()

    def new(self, **changes: Any) -> Loader:
        """A Loader of the same images and settings, without this one's cache, sampler and ranks.

        `changes` are further arguments of a Loader, which come first.
        """
        loader = cast("Loader", self)
        return loader.like(loader.dataset, **changes)

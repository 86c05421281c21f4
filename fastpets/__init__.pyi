from .analysis.interpolation import interpolation_figure
from .analysis.interpretation import Interpretation
from .augment.policy import Augment
from .augment.preprocessing import Preprocessing
from .data.dataset import ImageDataset
from .errors import BadFileError, BadFileWarning, FastpetsError, InvalidArgumentError
from .loading.batch import Batch
from .loading.loader import Loader
from .loading.loaders import loaders
from .models.classifier import create_model
from .runs.build import Recipe
from .runs.predictor import Predictor, load
from .training.learner import Learner
from .training.mixing import make_mix
from .training.options import TrainingOptions
from .training.phases import Phase
from .training.tta import tta

__all__ = [
    "Augment",
    "BadFileError",
    "BadFileWarning",
    "Batch",
    "FastpetsError",
    "ImageDataset",
    "Interpretation",
    "InvalidArgumentError",
    "Learner",
    "Loader",
    "Phase",
    "Predictor",
    "Preprocessing",
    "Recipe",
    "TrainingOptions",
    "create_model",
    "interpolation_figure",
    "load",
    "loaders",
    "make_mix",
    "tta",
]

__version__: str

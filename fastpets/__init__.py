"""A fast image loader on NVIDIA DALI, and a compact PyTorch trainer fed by it.

The public names are listed, with their types, in `__init__.pyi`. Each is imported when it is first used, so that
`import fastpets` imports neither torch nor DALI.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

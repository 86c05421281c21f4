"""Machine resources, argument checks, files, progress bars, figures and random numbers.

Independent of the other packages; three or more of them use each module.
"""

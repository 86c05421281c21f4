"""Analysis of data sets and of trained models.

In reading order: before training, `data_quality` warns of problems in a data set, and `trace` shows how the loader
processes one image. After training, `interpretation` holds a model's predictions and finds its errors; `plots` draws
them, and `report` writes them as an HTML page, with `grad_cam`. `confident_learning` finds labels that may be
wrong, and `suspects` writes them. `page` is what both pages have in common. `exporting` writes a run folder for a
learner, and `interpolation` draws what repeated interpolation costs.
"""

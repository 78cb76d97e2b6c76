"""One module for each place that a model can come from."""

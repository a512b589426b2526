"""Whether a dataset is sound, true, new and useful."""

"""Datasets: in memory, on disk, and what is wrong with them."""

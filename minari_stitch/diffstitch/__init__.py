"""DiffStitch (Li et al., 2024): the paper, and nothing else."""

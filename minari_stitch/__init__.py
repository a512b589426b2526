"""Dataset transforms for Minari that give offline reinforcement learning the trajectories it lacks."""

"""OGBench's point mazes: their data made anew, their environments and tasks, and what was published about them."""

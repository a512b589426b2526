"""The real simulator: behaviour policies, demo datasets, poses, and the oracle."""

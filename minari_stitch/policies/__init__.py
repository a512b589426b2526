"""Behaviour policies of the demo datasets: soft actor-critic actors and their measured returns."""

"""What all learned methods share: normalisers, networks, the fit loop."""

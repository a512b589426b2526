"""The paper's baselines SynthER and TATU, and controls that learn nothing."""

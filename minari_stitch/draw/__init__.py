"""Pictures of stitched episodes."""

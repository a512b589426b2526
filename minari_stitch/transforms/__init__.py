"""What a method is, which ones there are, and the command lines that make their datasets again."""

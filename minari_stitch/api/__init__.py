"""What a script calls and the command line shows: `import minari_stitch` has all of it."""

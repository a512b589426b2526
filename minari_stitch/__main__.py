"""`python -m minari_stitch`: the command line."""

from minari_stitch.cli import main

if __name__ == "__main__":
    main()

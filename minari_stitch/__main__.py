"""`python -m minari_stitch`: the command line."""

from minari_stitch.cli import main  # pyright: ignore[reportMissingImports] - it stands in cli/

if __name__ == "__main__":
    main()

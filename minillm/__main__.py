"""`python -m minillm` is the `minillm` command."""

from minillm.cli.main import main

if __name__ == "__main__":  # workers of a pool of processes load this file, too
    raise SystemExit(main())

"""`python -m minillm` is the `minillm` command."""

from minillm.cli.main import main

raise SystemExit(main())

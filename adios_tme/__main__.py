"""``python -m adios_tme``: the command line, where its script is not on the path."""

from __future__ import annotations

from adios_tme.cli.app import main

if __name__ == "__main__":
    main()

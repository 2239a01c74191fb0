"""``python -m clrelkt``."""

from __future__ import annotations

from clrelkt.cli.main import main

if __name__ == "__main__":
    main()

"""Imported first, and only, by the process that the tests' commands are forked from.

It runs no file, and DuckDB would take that for somebody at a prompt, and draw progress bars into what a slow query
prints. Nothing else belongs here.
"""

import __main__

__main__.__file__ = __file__

"""Tamis: finds the few things that matter in large media.

Each capability is a sub-package: `tamis.subtitles` reads burnt-in subtitles. Importing `tamis` loads none of their
dependencies.
"""

__version__ = "0.1.0"

"""orchgit: a feature issue, built by several agents on one git repository, under rules that hold."""

__version__ = "0.1.0"

"""Page of many runs: a table of all, and a section of each."""

from evaluation.reporting.index.page import ListedRun, index_page

__all__ = ["ListedRun", "index_page"]

"""Page of many runs: a table of all, and a section of each."""

from evaluation.reporting.index.page import index_page
from evaluation.reporting.index.table import ListedRun

__all__ = ["ListedRun", "index_page"]

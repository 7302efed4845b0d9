"""The report of a summary: text cells, pages, templates."""

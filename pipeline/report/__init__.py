"""The report: what the paper says beside what was measured, as Markdown, CSV and figures, from the runs' files."""

"""Run folders read back as rows."""

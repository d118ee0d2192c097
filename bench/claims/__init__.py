"""Claims that others made -> verdicts from runs."""

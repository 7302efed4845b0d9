"""The published study: its raw text as records, and its tables recomputed."""

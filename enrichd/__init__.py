"""enrichd: lead enrichment in the background, on the PostgreSQL a team already has."""

__version__ = "0.1.0"

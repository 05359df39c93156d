"""The ways out: SMTP, and those that only capture."""

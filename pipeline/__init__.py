"""Stream a clustered corpus as a mixture that can change at any step."""

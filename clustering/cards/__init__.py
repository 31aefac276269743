"""What each domain is about."""

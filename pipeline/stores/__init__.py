"""One prefix of an object store: requests, what refusals mean, trying again."""

"""What the stages left, to the folder that is a corpus."""

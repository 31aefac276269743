"""The one HTML file of a comparison."""

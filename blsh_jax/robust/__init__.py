"""What was added for noise that no dictionary has heard, each part by itself."""

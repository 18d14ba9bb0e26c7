"""The paper: Algorithms 1 and 2 and equations 1 to 6, as pure functions of arrays."""

"""The commands of `mailray`: here, and nowhere else, the packages are put together."""

"""Train rows counted by value and by pair of values, and the numbers that counts become."""

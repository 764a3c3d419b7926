"""What the numbers say: statistics, fairness, directions, advice, confirmations, in numbers and sentences."""

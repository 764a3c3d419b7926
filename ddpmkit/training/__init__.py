"""From the first weights to the last: the loop (Algorithm 1), the weights' start, averages, steps, checkpoints."""

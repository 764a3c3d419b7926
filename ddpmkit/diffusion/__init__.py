"""The maths of DDPM: float64 tables, the Gaussians of the chain, the training objective, the likelihood."""

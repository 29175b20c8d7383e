"""Learning rate and weight decay, chosen by Optuna."""

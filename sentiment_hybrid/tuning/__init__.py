"""The search for hyperparameters: what is searched, where it is kept, who trains the trials."""

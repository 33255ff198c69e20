"""The search for hyper-parameters: what is searched, where it is kept, who trains the trials."""

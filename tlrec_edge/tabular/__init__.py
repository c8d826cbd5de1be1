"""Read tables by one set of rules, for training and for serving, and write them."""

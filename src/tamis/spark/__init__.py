"""Train a Spark Transformer and decode with it on a CPU."""

"""`spring forget USER`: a live project as if the person had never been in it."""

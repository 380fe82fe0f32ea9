"""The evaluation nobody can fool: every retraining of the past again, judged on what followed."""

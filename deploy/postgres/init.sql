-- Run once, when the volume is empty: one database for each part.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
CREATE DATABASE ledger;

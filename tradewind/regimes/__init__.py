"""Market regimes: one detector, and views of what it says. Pure: arrays in, arrays out."""

"""Settings: their models, where each value came from, and how a watched file is reloaded."""

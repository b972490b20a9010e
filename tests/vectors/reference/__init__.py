"""Independent 50-digit reference of the formulas; one module per family, each with a cases() function."""

"""The parts that bundles are composed from, and what composes them."""

"""Data lists, their checks, cached cases, crops and views."""

"""Tests of hearback.engine.plan."""

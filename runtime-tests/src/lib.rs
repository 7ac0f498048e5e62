//! Tests of the runtime as a whole; everything is under `tests/`.

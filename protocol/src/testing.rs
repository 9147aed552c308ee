//! Drivers for tests.

//! Tests of the MySQL machines, by subject.

//! The log as its users see it: written, killed, starved, tampered with, read back.
mod faults;
mod golden;
mod independent;
mod kill;
mod mutation;
mod reading;
mod support;

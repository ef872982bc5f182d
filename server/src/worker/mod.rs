//! Drives attempts.

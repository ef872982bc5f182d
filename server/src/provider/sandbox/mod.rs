//! Built in: draws locally.

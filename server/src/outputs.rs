//! Copies of delivered files in storage that we control.

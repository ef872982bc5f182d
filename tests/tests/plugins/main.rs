//! Providers as dynamic libraries: good ones, broken ones, new ones, and those that are replaced under load.

#![allow(clippy::unwrap_used, clippy::panic)]

mod broken;
mod check;
mod new;
mod pixie;
mod reload;
mod replicate;
mod shipped;

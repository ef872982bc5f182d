//! Providers as dynamic libraries: good ones, broken ones, new ones, and those that are replaced under load.

mod broken;
mod check;
mod new;
mod reload;

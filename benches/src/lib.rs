//! What the commands of this crate are made of: `bench` (submits, pgbench, reads), `scale` (growth ten-fold by ten-fold) and
//! `plugin` (a library against the same code linked in). See `benches/README.md` for what each number means.
//!
//! Nothing here is part of the product. Whatever is measured together runs in one go on one machine, turn by turn, and is
//! read as a ratio.

pub mod cpu;
pub mod ground;
pub mod hello;
pub mod load;
pub mod people;
pub mod pgbench;
pub mod phase;
pub mod requests;
pub mod server;
pub mod store;
pub mod table;

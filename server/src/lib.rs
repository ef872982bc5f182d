//! Velro turns AI model providers into a paid, multi-tenant generation API.
//!
//! Modules in reading order, top down; dependencies point one way: `http, worker -> intake -> store, queue, provider,
//! upstream -> catalog, generation, ledger -> id, clock`. `app` is the composition root, the only one that sees all.
//! ARCHITECTURE.md has the map, the invariants and two walkthroughs.

pub mod app;
pub mod cli;
pub mod config;

pub mod catalog;
pub mod generation;
pub mod ledger;

pub mod outputs;
pub mod payments;
pub mod plugin;
pub mod provider;
pub mod purchase;
pub mod queue;
pub mod shared;
pub mod store;
pub mod upstream;

pub mod auth;
pub mod desk;
pub mod http;
pub mod intake;
pub mod telemetry;
pub mod worker;

pub mod clock;
pub mod document;
pub mod failpoint;
pub mod id;
pub mod pause;

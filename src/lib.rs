#![doc = include_str!("../ARCHITECTURE.md")]

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod lifecycle;
pub mod linger;
pub mod manage;
pub mod ops;
pub mod proxy;
pub mod replica;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod tls;

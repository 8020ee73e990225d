//! Python services that the gateway runs itself.

mod environ;
mod process;
mod records;
pub mod shim;

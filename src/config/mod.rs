//! From text to [`settings::Settings`].

pub mod problem;
pub mod settings;
pub mod source;

//! Content codings (RFC 9110 section 8.4.1): which of them a client takes, and answers coded on their way to it.

pub mod accept;
pub mod answer;
mod body;
mod encoder;
pub mod encoders;
mod types;

/// A coding that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// As it stands in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// What the name of a file that was coded beforehand ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Zstd => ".zst",
            Coding::Brotli => ".br",
            Coding::Gzip => ".gz",
        }
    }
}

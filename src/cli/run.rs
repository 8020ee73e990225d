//! `passerelle run`.

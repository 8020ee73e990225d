//! Names resolved again when their TTL runs out.

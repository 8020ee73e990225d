//! What is told of an app that the gateway runs.

/// An app at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct AppReading {
    pub app: String,
    /// The release that serves.
    pub release: Option<u64>,
    /// Those that came to something, by the word for it.
    pub releases: Vec<(&'static str, u64)>,
    /// How many workers there are, by their state.
    pub states: Vec<(&'static str, u64)>,
    /// How many should serve.
    pub wanted: u32,
    pub restarts: Vec<(&'static str, u64)>,
    pub cpu_seconds: f64,
    pub build_seconds: Option<f64>,
    pub start_seconds: Option<f64>,
    /// Of each worker, in bytes.
    pub memory_limit: Option<u64>,
    pub workers: Vec<AppWorkerReading>,
}

/// One worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppWorkerReading {
    pub number: u32,
    pub age_seconds: u64,
    pub memory: Option<u64>,
    pub open_files: Option<u64>,
}

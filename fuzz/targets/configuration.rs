//! Configuration texts: every problem can be shown, and what is read can be looked at, whatever the text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use passerelle::config::{Outside, load_text, render};

fuzz_target!(|text: &str| {
    let loaded = load_text("fuzz.toml", text, Path::new("/nowhere"), &Outside::new(&|_| Some("drawn".into())));
    let _ = loaded.settings();
    let (_, problems) = loaded.build(|settings, _| Some(settings));
    let shown = render::human(&problems, false);
    assert_eq!(shown.is_empty(), problems.is_empty());
    let _ = render::json(&problems);
});

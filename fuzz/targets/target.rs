//! Targets and hosts: what is accepted is in its one form.
#![no_main]

use bytes::Bytes;
use http::Method;
use libfuzzer_sys::fuzz_target;
use passerelle::request::target::{Host, Path, Target, normalise};

fuzz_target!(|text: &[u8]| {
    let bytes = Bytes::copy_from_slice(text);
    if let Ok(host) = Host::parse(bytes.clone()) {
        assert!(!host.name().is_empty() && host.as_str().as_bytes() == text);
        assert!(!host.name().contains(['/', '@', ' ', ',', '%', '?', '#', '\\']));
    }
    for method in [Method::GET, Method::OPTIONS] {
        let Ok(target) = Target::parse(&method, &bytes) else { continue };
        let Path::Normal(path) = target.path else { continue };
        let text = path.as_str();
        assert!(text.starts_with('/') && !text.contains("//") && !text.contains(['\\', '?', '#', ' ']));
        assert!(!text.contains("%00") && !text.contains("%5C") && !text.contains("%2E"));
        let decoded = text.replace("%2F", "/");
        assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
        assert_eq!(path.encoded_slash, text.contains("%2F"));
        assert_eq!(normalise(Bytes::copy_from_slice(text.as_bytes())), Ok(path.clone()));
        let query = target.query.unwrap_or_default();
        assert!(query.iter().all(|byte| (0x21..=0x7e).contains(byte)));
    }
});

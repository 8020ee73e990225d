//! What a file is, by the ending of its name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What is said of files of one ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// As it stands in `Content-Type`.
    pub media_type: &'static str,
    /// Whether its bytes are coded already, so that nobody compresses them again.
    pub coded: bool,
}

const UNKNOWN: Kind = Kind { media_type: "application/octet-stream", coded: false };

/// Endings that the web is made of, in order. Text is UTF-8: it is what everything writes.
const KINDS: &[(&str, &str, bool)] = &[
    ("7z", "application/x-7z-compressed", true),
    ("aac", "audio/aac", true),
    ("apng", "image/apng", true),
    ("atom", "application/atom+xml", false),
    ("avi", "video/x-msvideo", true),
    ("avif", "image/avif", true),
    ("bin", "application/octet-stream", false),
    ("bmp", "image/bmp", false),
    ("br", "application/octet-stream", true),
    ("bz2", "application/x-bzip2", true),
    ("cjs", "text/javascript; charset=utf-8", false),
    ("css", "text/css; charset=utf-8", false),
    ("csv", "text/csv; charset=utf-8", false),
    ("doc", "application/msword", false),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", true),
    ("eot", "application/vnd.ms-fontobject", false),
    ("epub", "application/epub+zip", true),
    ("flac", "audio/flac", true),
    ("geojson", "application/geo+json", false),
    ("gif", "image/gif", true),
    ("gz", "application/gzip", true),
    ("heic", "image/heic", true),
    ("htm", "text/html; charset=utf-8", false),
    ("html", "text/html; charset=utf-8", false),
    ("ico", "image/x-icon", false),
    ("ics", "text/calendar; charset=utf-8", false),
    ("jpeg", "image/jpeg", true),
    ("jpg", "image/jpeg", true),
    ("js", "text/javascript; charset=utf-8", false),
    ("json", "application/json", false),
    ("jsonl", "application/jsonl", false),
    ("jsonld", "application/ld+json", false),
    ("jxl", "image/jxl", true),
    ("log", "text/plain; charset=utf-8", false),
    ("m3u8", "application/vnd.apple.mpegurl", false),
    ("m4a", "audio/mp4", true),
    ("m4v", "video/mp4", true),
    ("map", "application/json", false),
    ("md", "text/markdown; charset=utf-8", false),
    ("mjs", "text/javascript; charset=utf-8", false),
    ("mkv", "video/matroska", true),
    ("mov", "video/quicktime", true),
    ("mp3", "audio/mpeg", true),
    ("mp4", "video/mp4", true),
    ("mpd", "application/dash+xml", false),
    ("odp", "application/vnd.oasis.opendocument.presentation", true),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet", true),
    ("odt", "application/vnd.oasis.opendocument.text", true),
    ("oga", "audio/ogg", true),
    ("ogg", "audio/ogg", true),
    ("ogv", "video/ogg", true),
    ("opus", "audio/ogg", true),
    ("otf", "font/otf", false),
    ("pdf", "application/pdf", true),
    ("png", "image/png", true),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation", true),
    ("py", "text/x-python; charset=utf-8", false),
    ("rss", "application/rss+xml", false),
    ("rtf", "application/rtf", false),
    ("svg", "image/svg+xml", false),
    ("tar", "application/x-tar", false),
    ("tgz", "application/gzip", true),
    ("tif", "image/tiff", true),
    ("tiff", "image/tiff", true),
    ("ts", "video/mp2t", true),
    ("ttf", "font/ttf", false),
    ("txt", "text/plain; charset=utf-8", false),
    ("vtt", "text/vtt; charset=utf-8", false),
    ("wasm", "application/wasm", false),
    ("wav", "audio/wav", false),
    ("weba", "audio/webm", true),
    ("webm", "video/webm", true),
    ("webmanifest", "application/manifest+json", false),
    ("webp", "image/webp", true),
    ("whl", "application/zip", true),
    ("woff", "font/woff", true),
    ("woff2", "font/woff2", true),
    ("xhtml", "application/xhtml+xml", false),
    ("xls", "application/vnd.ms-excel", false),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", true),
    ("xml", "application/xml", false),
    ("xz", "application/x-xz", true),
    ("yaml", "application/yaml", false),
    ("yml", "application/yaml", false),
    ("zip", "application/zip", true),
    ("zst", "application/zstd", true),
];

impl Kind {
    /// Of the file with this path.
    pub fn of(path: &[u8]) -> Kind {
        let extension = std::path::Path::new(OsStr::from_bytes(path)).extension().and_then(OsStr::to_str);
        let Some(extension) = extension.map(str::to_ascii_lowercase) else { return UNKNOWN };
        let place = KINDS.binary_search_by_key(&extension.as_str(), |(ending, _, _)| ending);
        let found = place.ok().and_then(|place| KINDS.get(place));
        found.map_or(UNKNOWN, |&(_, media_type, coded)| Kind { media_type, coded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(KINDS.is_sorted_by(|one, other| one.0 < other.0));
        for (ending, media_type, _) in KINDS {
            assert!(http::HeaderValue::from_str(media_type).is_ok() && !ending.contains('.'));
        }
    }

    #[test]
    fn endings_are_found_in_any_case() {
        assert_eq!(Kind::of(b"a/b.min.JS").media_type, "text/javascript; charset=utf-8");
        assert_eq!(Kind::of(b"a.tar.gz").media_type, "application/gzip");
        for unknown in [&b"a"[..], b"a.", b"a.b/c", b"\xff.css\xff", b".css"] {
            assert_eq!(Kind::of(unknown), UNKNOWN);
        }
    }
}
